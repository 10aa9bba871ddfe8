//! The public keys that may sign tokens: a JSON Web Key Set, read once.
//!
//! The type of a key says which algorithms it may verify; what a token's header says of keys (`jku`, `jwk`, `x5u`) is
//! never looked at (RFC 8725 3.1 and 3.10).

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde_json::{Map, Value};

/// Key sets have a few KiB; longer ones are refused unread.
pub(super) const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// A key set has a handful of keys; each one may cost a signature check.
pub(super) const MAX_KEYS: usize = 64;

/// Public keys that may sign tokens.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

/// One of them.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Why a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Not a JSON Web Key Set.
    #[error("not a JSON Web Key Set: {0}")]
    Malformed(String),
    /// It has no key that could sign a token.
    #[error("the key set has no usable key (ES256, ES384, EdDSA, RS*, PS*)")]
    Empty,
    /// It has too many.
    #[error("{0} keys are too many")]
    TooMany(usize),
}

impl Keys {
    /// Reads a JSON Web Key Set (RFC 7517). Keys that cannot sign tokens are passed over (section 5), symmetric ones too.
    ///
    /// # Errors
    /// [`KeysError`] when no usable key is left.
    pub fn parse(json: &[u8]) -> Result<Self, KeysError> {
        if json.len() > MAX_KEY_SET_BYTES {
            return Err(KeysError::Malformed(format!("{} bytes are too many", json.len())));
        }
        let malformed = |error: serde_json::Error| KeysError::Malformed(error.to_string());
        let set: Map<String, Value> = serde_json::from_slice(json).map_err(malformed)?;
        let Some(Value::Array(entries)) = set.get("keys") else {
            return Err(KeysError::Malformed("it has no list \"keys\"".to_owned()));
        };
        if entries.len() > MAX_KEYS {
            return Err(KeysError::TooMany(entries.len()));
        }
        let keys: Vec<Key> = entries.iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self(keys))
    }

    /// Those that may have signed a token with this key id and algorithm. Several keys may have one id.
    pub(super) fn fitting(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| key.fits(id, algorithm))
    }
}

impl Key {
    fn read(entry: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(entry.clone()).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                vec![Algorithm::ES256]
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
                vec![Algorithm::ES384]
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            AlgorithmParameters::RSA(_) => RSA_ALGORITHMS.to_vec(),
            _ => return None,
        };
        if let Some(declared) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| declared_as(*algorithm) == declared);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, key })
    }

    fn fits(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let same_id = match (id, self.id.as_deref()) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        };
        same_id && self.algorithms.contains(&algorithm)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id.as_deref().unwrap_or("(no id)"))).finish()
    }
}

const RSA_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

fn declared_as(algorithm: Algorithm) -> KeyAlgorithm {
    match algorithm {
        Algorithm::ES256 => KeyAlgorithm::ES256,
        Algorithm::ES384 => KeyAlgorithm::ES384,
        Algorithm::EdDSA => KeyAlgorithm::EdDSA,
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::RS384 => KeyAlgorithm::RS384,
        Algorithm::RS512 => KeyAlgorithm::RS512,
        Algorithm::PS256 => KeyAlgorithm::PS256,
        Algorithm::PS384 => KeyAlgorithm::PS384,
        Algorithm::PS512 => KeyAlgorithm::PS512,
        _ => KeyAlgorithm::UNKNOWN_ALGORITHM,
    }
}
