//! Is this token signed by one of these keys, for us, and valid now? One function for the control plane (service account
//! tokens) and for what a request carries.
//!
//! Pure: no clock, no fetching of keys. Knows not what the claims mean to whoever asks.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde_json::{Map, Value};

/// Tokens have one or two KiB; longer ones are refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Key sets have a few KiB; longer ones are refused unread.
const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// A key set has a handful of keys; each one may cost a signature check.
const MAX_KEYS: usize = 64;
/// Clocks of issuer and verifier may differ by so many seconds.
const LEEWAY: u64 = 10;

/// Public keys that may sign tokens.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// What a token must say of itself.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// `iss`, exactly.
    pub issuer: &'a str,
    /// One of these must be in `aud`; an empty list accepts every audience.
    pub audiences: &'a [String],
}

/// What a verified token claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(Map<String, Value>);

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

/// Why a token is refused. Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not a JWT, or longer than 16 KiB.
    #[error("it is not a JWT")]
    Malformed,
    /// It names header fields that must be understood (RFC 7515 4.1.11); we understand none.
    #[error("its header demands an extension that is not understood (crit)")]
    Critical,
    /// No key of that id or algorithm.
    #[error("no key of the key set fits its key id and algorithm")]
    UnknownKey,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It is too late.
    #[error("it expired {0} s ago")]
    Expired(u64),
    /// It is too early.
    #[error("it is valid in {0} s only")]
    NotYet(u64),
    /// A required claim is absent, or of another type.
    #[error("its claim {0:?} is missing or malformed")]
    Claim(&'static str),
    /// Another issuer's.
    #[error("its issuer is not the expected one")]
    Issuer,
    /// For somebody else.
    #[error("its audience is not the expected one")]
    Audience,
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

impl From<Map<String, Value>> for Claims {
    /// What somebody else verified.
    fn from(claims: Map<String, Value>) -> Self {
        Self(claims)
    }
}

impl Claims {
    /// A claim as it was written.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.get("sub")?.as_str()
    }

    /// `exp`, seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.0.get("exp").and_then(date)
    }

    fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    // A single text or a list (RFC 7519 4.1.3).
    fn has_audience(&self, wanted: &[String]) -> bool {
        let is_wanted =
            |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|one| one == text));
        match self.0.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_wanted),
            Some(value) => is_wanted(value),
            None => false,
        }
    }
}

/// Verifies signature, issuer, audience and time (`now`: seconds since 1970) of a token. `exp` is required.
///
/// # Errors
/// [`JwtError`] says what is wrong, for the log; it tells the token's sender nothing that it may not know.
pub fn verify(token: &str, keys: &Keys, expected: Expected<'_>, now: u64) -> Result<Claims, JwtError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
    if header.crit.is_some() {
        return Err(JwtError::Critical);
    }
    let mut fitting = keys.0.iter().filter(|key| key.fits(header.kid.as_deref(), header.alg)).peekable();
    if fitting.peek().is_none() {
        return Err(JwtError::UnknownKey);
    }
    let claims = fitting.find_map(|key| signed_by(token, key, header.alg)).ok_or(JwtError::Signature)?;

    in_time(&claims, now)?;
    if claims.issuer() != Some(expected.issuer) {
        return Err(JwtError::Issuer);
    }
    if !expected.audiences.is_empty() && !claims.has_audience(expected.audiences) {
        return Err(JwtError::Audience);
    }
    Ok(claims)
}

fn signed_by(token: &str, key: &Key, algorithm: Algorithm) -> Option<Claims> {
    // The library would read the clock, and lets an absent `aud` pass: here it checks the signature alone.
    let mut signature_only = Validation::new(algorithm);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &signature_only).ok()?;
    Some(Claims(token.claims))
}

fn in_time(claims: &Claims, now: u64) -> Result<(), JwtError> {
    let expires = claims.expires().ok_or(JwtError::Claim("exp"))?;
    if now >= expires.saturating_add(LEEWAY) {
        return Err(JwtError::Expired(now.saturating_sub(expires)));
    }
    match claims.0.get("nbf").map(|value| date(value).ok_or(JwtError::Claim("nbf"))).transpose()? {
        Some(start) if start > now.saturating_add(LEEWAY) => Err(JwtError::NotYet(start.saturating_sub(now))),
        _ => Ok(()),
    }
}

// NumericDate may have a fraction (RFC 7519 2); whole seconds are enough.
fn date(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds))?;
        Some(seconds as u64)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode, jwk::JwkSet};
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    struct Issuer {
        key: EncodingKey,
        keys: Keys,
    }

    fn issuer(id: &str) -> Issuer {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        let keys = Keys::parse(&serde_json::to_vec(&JwkSet { keys: vec![jwk] }).unwrap()).unwrap();
        Issuer { key, keys }
    }

    fn token(issuer: &Issuer, id: &str, claims: &Value) -> String {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &issuer.key).unwrap()
    }

    fn good() -> Value {
        json!({"iss": "lab", "aud": ["douane-ca", "other"], "exp": NOW + 600, "sub": "web"})
    }

    fn check(issuer: &Issuer, token: &str) -> Result<Claims, JwtError> {
        let audiences = ["douane-ca".to_owned()];
        verify(token, &issuer.keys, Expected { issuer: "lab", audiences: &audiences }, NOW)
    }

    #[test]
    fn a_token_for_us_is_accepted() {
        let lab = issuer("a");
        let claims = check(&lab, &token(&lab, "a", &good())).unwrap();
        assert_eq!(claims.subject(), Some("web"));
        assert_eq!(claims.expires(), Some(NOW + 600));
    }

    #[test]
    fn every_wrong_claim_is_refused_with_its_name() {
        let lab = issuer("a");
        let cases = [
            ("exp", json!(NOW - 60), JwtError::Expired(60)),
            ("exp", json!("soon"), JwtError::Claim("exp")),
            ("exp", Value::Null, JwtError::Claim("exp")),
            ("nbf", json!(NOW + 60), JwtError::NotYet(60)),
            ("nbf", json!([]), JwtError::Claim("nbf")),
            ("iss", json!("other"), JwtError::Issuer),
            ("iss", json!(["lab"]), JwtError::Issuer),
            ("aud", json!("other"), JwtError::Audience),
            ("aud", json!([]), JwtError::Audience),
            ("aud", Value::Null, JwtError::Audience),
        ];
        for (name, value, error) in cases {
            let mut claims = good();
            claims[name] = value.clone();
            assert_eq!(check(&lab, &token(&lab, "a", &claims)), Err(error), "{name} = {value}");
        }
        let mut claims = good();
        claims.as_object_mut().unwrap().remove("exp");
        assert_eq!(check(&lab, &token(&lab, "a", &claims)), Err(JwtError::Claim("exp")));
    }

    #[test]
    fn a_foreign_signature_is_refused() {
        let (lab, thief) = (issuer("a"), issuer("a"));
        assert_eq!(check(&lab, &token(&thief, "a", &good())), Err(JwtError::Signature));
        assert_eq!(check(&lab, &token(&lab, "b", &good())), Err(JwtError::UnknownKey));
    }

    #[test]
    fn a_symmetric_or_absent_algorithm_is_refused() {
        let lab = issuer("a");
        let hmac =
            encode(&Header::default(), &good(), &EncodingKey::from_secret(b"public key bytes")).unwrap();
        assert_eq!(check(&lab, &hmac), Err(JwtError::UnknownKey));
        let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJsYWIifQ.";
        assert_eq!(check(&lab, none), Err(JwtError::Malformed));
        for garbage in ["", "a.b.c", "....", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert_eq!(check(&lab, garbage), Err(JwtError::Malformed));
        }
    }

    #[test]
    fn a_header_field_that_must_be_understood_is_refused() {
        let lab = issuer("a");
        for names in [vec![], vec!["exp".to_owned()], vec!["b64".to_owned()]] {
            let header = Header { crit: Some(names), ..Header::new(Algorithm::ES256) };
            let token = encode(&header, &good(), &lab.key).unwrap();
            assert_eq!(check(&lab, &token), Err(JwtError::Critical));
        }
    }

    #[test]
    fn a_key_set_without_a_usable_key_is_an_error() {
        let symmetric = br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
        assert_eq!(Keys::parse(symmetric).unwrap_err(), KeysError::Empty);
        for malformed in [&b""[..], b"[]", b"{}", br#"{"keys":1}"#] {
            assert!(matches!(Keys::parse(malformed), Err(KeysError::Malformed(_))));
        }
    }

    #[test]
    fn a_key_set_is_bounded_in_bytes_and_keys() {
        let long = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(MAX_KEY_SET_BYTES));
        assert!(matches!(Keys::parse(long.as_bytes()), Err(KeysError::Malformed(_))));
        let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
        assert_eq!(Keys::parse(many.as_bytes()).unwrap_err(), KeysError::TooMany(MAX_KEYS + 1));
    }

    #[test]
    fn a_key_verifies_only_the_algorithms_of_its_kind() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        for declared in ["HS256", "RS256", "ES384", "none"] {
            let mut jwk = jwk.clone();
            jwk["alg"] = json!(declared);
            let set = json!({"keys": [jwk]}).to_string();
            assert_eq!(Keys::parse(set.as_bytes()).unwrap_err(), KeysError::Empty, "{declared}");
        }
        let mut for_encryption = jwk;
        for_encryption["use"] = json!("enc");
        let set = json!({"keys": [for_encryption]}).to_string();
        assert_eq!(Keys::parse(set.as_bytes()).unwrap_err(), KeysError::Empty);
    }

    proptest! {
        #[test]
        fn no_token_and_no_key_set_panics(
            text in any::<String>(), bytes in any::<Vec<u8>>(), parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,8}",
        ) {
            thread_local!(static LAB: Issuer = issuer("a"));
            let _ = Keys::parse(&bytes);
            let _ = Keys::parse(text.as_bytes());
            LAB.with(|lab| {
                assert!(check(lab, &text).is_err());
                assert!(check(lab, &parts).is_err());
            });
        }
    }
}
