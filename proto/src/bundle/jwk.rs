//! Public keys as JSON Web Keys (RFC 7517, RFC 7518 6, RFC 8037): of the kinds that sign SVIDs, their public members only.
//!
//! Knows not what a key is for (`document`).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use x509_parser::{
    prelude::{FromDer, SubjectPublicKeyInfo},
    public_key::PublicKey as Spki,
};

/// The longest number of a key: the modulus of RSA 8192.
const MAX_NUMBER_BYTES: usize = 1024;
/// The algorithm of elliptic curves, and the named curves (RFC 5480 2.1.1).
const EC: &str = "1.2.840.10045.2.1";
const CURVES: [(&str, &str, usize); 3] =
    [("1.2.840.10045.3.1.7", "P-256", 32), ("1.3.132.0.34", "P-384", 48), ("1.3.132.0.35", "P-521", 66)];
/// RFC 8410.
const ED25519: &str = "1.3.101.112";
const ED25519_BYTES: usize = 32;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: &'static str,
    curve: Option<&'static str>,
    // Names of members with their bytes, in the order in which they are written.
    numbers: Vec<(&'static str, Vec<u8>)>,
}

/// Why a JSON object is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Of a kind that we do not know: its element is passed over (Trust Domain and Bundle 4.2.1).
    #[error("its kind is unknown")]
    Unknown,
    /// Of a kind that we know, and not what it should be.
    #[error("its member {0:?} is missing, or not what it should be")]
    Member(&'static str),
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo; `None` where its kind is none that signs SVIDs.
    #[must_use]
    pub fn of_spki(der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        if rest.is_empty() { Self::of(&spki) } else { None }
    }

    pub(super) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let bits = &*spki.subject_public_key.data;
        if spki.algorithm.algorithm.to_id_string() == ED25519 {
            return (bits.len() == ED25519_BYTES).then(|| Self::ed25519(bits));
        }
        match spki.parsed().ok()? {
            Spki::RSA(key) => {
                let (n, e) = (unsigned(key.modulus), unsigned(key.exponent));
                let fits = |number: &[u8]| (1..=MAX_NUMBER_BYTES).contains(&number.len());
                (fits(n) && fits(e)).then(|| Self {
                    kind: "RSA",
                    curve: None,
                    numbers: vec![("n", n.to_vec()), ("e", e.to_vec())],
                })
            }
            Spki::EC(point) if spki.algorithm.algorithm.to_id_string() == EC => {
                let named = spki.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
                let (_, curve, bytes) = CURVES.iter().find(|(id, ..)| *id == named)?;
                // Not compressed: 4, and both coordinates (SEC 1 2.3.3).
                let coordinates = point.data().strip_prefix(&[4]).filter(|rest| rest.len() == 2 * bytes)?;
                let (x, y) = coordinates.split_at(*bytes);
                Some(Self {
                    kind: "EC",
                    curve: Some(curve),
                    numbers: vec![("x", x.to_vec()), ("y", y.to_vec())],
                })
            }
            _ => None,
        }
    }

    /// Reads the members of a key.
    pub(super) fn read(jwk: &Map<String, Value>) -> Result<Self, JwkError> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        match text("kty") {
            Some("RSA") => {
                let numbers = vec![("n", number(jwk, "n", None)?), ("e", number(jwk, "e", None)?)];
                Ok(Self { kind: "RSA", curve: None, numbers })
            }
            Some("EC") => {
                let curve = text("crv").ok_or(JwkError::Member("crv"))?;
                let known = CURVES.iter().find(|(_, name, _)| *name == curve);
                let (_, curve, bytes) = known.ok_or(JwkError::Unknown)?;
                let numbers =
                    vec![("x", number(jwk, "x", Some(*bytes))?), ("y", number(jwk, "y", Some(*bytes))?)];
                Ok(Self { kind: "EC", curve: Some(curve), numbers })
            }
            Some("OKP") if text("crv") == Some("Ed25519") => {
                Ok(Self::ed25519(&number(jwk, "x", Some(ED25519_BYTES))?))
            }
            _ => Err(JwkError::Unknown),
        }
    }

    /// Its members.
    pub(super) fn write(&self) -> Map<String, Value> {
        let mut jwk = Map::new();
        jwk.insert("kty".to_owned(), self.kind.into());
        if let Some(curve) = self.curve {
            jwk.insert("crv".to_owned(), curve.into());
        }
        for (name, bytes) in &self.numbers {
            jwk.insert((*name).to_owned(), URL_SAFE_NO_PAD.encode(bytes).into());
        }
        jwk
    }

    fn ed25519(x: &[u8]) -> Self {
        Self { kind: "OKP", curve: Some("Ed25519"), numbers: vec![("x", x.to_vec())] }
    }
}

// DER's integers have a leading zero where their first bit is set; those of a JWK do not (RFC 7518 2).
fn unsigned(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    integer.get(zeros..).unwrap_or_default()
}

fn number(jwk: &Map<String, Value>, name: &'static str, bytes: Option<usize>) -> Result<Vec<u8>, JwkError> {
    let wrong = JwkError::Member(name);
    let Some(text) = jwk.get(name).and_then(Value::as_str) else { return Err(wrong) };
    // Base64 is a third longer.
    if text.len() > 2 * MAX_NUMBER_BYTES {
        return Err(wrong);
    }
    let Ok(read) = URL_SAFE_NO_PAD.decode(text) else { return Err(wrong) };
    let fits = match bytes {
        Some(bytes) => read.len() == bytes,
        None => (1..=MAX_NUMBER_BYTES).contains(&read.len()) && read.first() != Some(&0),
    };
    if fits { Ok(read) } else { Err(wrong) }
}
