//! A SPIFFE bundle (Trust Domain and Bundle 4): a JSON Web Key Set whose keys say for which kind of SVID they vouch, with a
//! sequence number and a hint when to look again.
//!
//! Strict on what is known and blind to what is not: an element of an unknown `use` or kind is passed over, one of a known
//! kind that is broken spoils the document. A document without any X.509 key is a valid one, by which nobody is trusted.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::jwk::{JwkError, PublicKey};
use crate::svid::{self, TrustBundle};

/// A bundle has a few KiB; a longer one is refused unread.
pub const MAX_BUNDLE_BYTES: usize = 256 * 1024;
/// A bundle has a handful of keys; each one may cost a signature check.
const MAX_KEYS: usize = 64;
/// As many as a sidecar takes of its own domain.
const MAX_ROOTS: usize = 32;
/// A root has about 600 bytes, a post-quantum one under 8 KiB.
const MAX_ROOT_BYTES: usize = 16 * 1024;
/// A key's id is a word.
const MAX_KEY_ID_BYTES: usize = 256;
/// What X.509 and JWT authorities say of their `use` (X509-SVID 6.1, JWT-SVID 6.1).
const X509: &str = "x509-svid";
const JWT: &str = "jwt-svid";

/// The keys of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BundleDocument {
    /// Certificates, DER. Without one, no X509-SVID of the domain is trusted.
    pub roots: Vec<Vec<u8>>,
    /// What JWT-SVIDs are verified with.
    pub jwt_keys: Vec<JwtAuthority>,
    /// Grows with each change (4.1.1).
    pub sequence: Option<u64>,
    /// Seconds after which it is worth looking again (4.1.2).
    pub refresh_hint: Option<u64>,
}

/// A key that signs JWT-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    /// `kid`.
    pub key_id: String,
    /// The key.
    pub key: PublicKey,
}

/// Why a document is no SPIFFE bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No JSON, or not the JSON of a bundle.
    #[error("it is not a SPIFFE bundle: {0}")]
    Malformed(String),
    /// A bound that no honest bundle reaches.
    #[error("it is too large: {0}")]
    TooLarge(String),
    /// One of its keys, counted from 1.
    #[error("key {number} of it: {reason}")]
    Key {
        /// Which.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

// A field that stands there twice is an error here, as it must be: which one counts nobody could tell.
#[derive(Deserialize)]
struct Written {
    keys: Vec<Value>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

enum Element {
    Root(Vec<u8>),
    Jwt(JwtAuthority),
    Ignored,
}

impl BundleDocument {
    /// What is published of our own bundle. Keys of kinds that no JSON Web Key is defined for are left out.
    #[must_use]
    pub fn of(bundle: &TrustBundle, refresh_hint: u64) -> Self {
        let jwt_key = |key: &svid::JwtKey| {
            Some(JwtAuthority { key_id: key.key_id.clone(), key: PublicKey::of_spki(&key.spki_der)? })
        };
        Self {
            roots: bundle.roots.clone(),
            jwt_keys: bundle.jwt_keys.iter().filter_map(jwt_key).collect(),
            sequence: Some(published_sequence(bundle)),
            refresh_hint: Some(refresh_hint),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`BundleError`]: what is broken, doubtful or too much is refused whole.
    pub fn parse(json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge(format!("{} bytes", json.len())));
        }
        let text = std::str::from_utf8(json).map_err(|error| BundleError::Malformed(error.to_string()))?;
        let written: Written =
            serde_json::from_str(text).map_err(|error| BundleError::Malformed(error.to_string()))?;
        if written.keys.len() > MAX_KEYS {
            return Err(BundleError::TooLarge(format!("{} keys", written.keys.len())));
        }
        let (mut roots, mut jwt_keys) = (Vec::new(), Vec::<JwtAuthority>::new());
        for (index, element) in written.keys.iter().enumerate() {
            let wrong = |reason: String| BundleError::Key { number: index + 1, reason };
            match read(element).map_err(wrong)? {
                Element::Root(root) if roots.contains(&root) => {}
                Element::Root(root) => roots.push(root),
                Element::Jwt(key) if jwt_keys.iter().any(|known| known.key_id == key.key_id) => {
                    return Err(wrong(format!("its kid {:?} is another key's as well", key.key_id)));
                }
                Element::Jwt(key) => jwt_keys.push(key),
                Element::Ignored => {}
            }
        }
        if roots.len() > MAX_ROOTS || jwt_keys.len() > MAX_ROOTS {
            let count = roots.len().max(jwt_keys.len());
            return Err(BundleError::TooLarge(format!("{count} keys of one use")));
        }
        let Written { spiffe_sequence: sequence, spiffe_refresh_hint: refresh_hint, .. } = written;
        Ok(Self { roots, jwt_keys, sequence, refresh_hint })
    }

    /// The document.
    #[must_use]
    pub fn write(&self) -> String {
        let roots = self.roots.iter().filter_map(|root| {
            let mut jwk = public_key(root).ok()??.write();
            jwk.insert("use".to_owned(), X509.into());
            jwk.insert("x5c".to_owned(), json!([STANDARD.encode(root)]));
            Some(jwk)
        });
        let keys = self.jwt_keys.iter().map(|key| {
            let mut jwk = key.jwk();
            jwk.insert("use".to_owned(), JWT.into());
            jwk
        });
        let keys: Vec<Value> = roots.chain(keys).map(Value::Object).collect();
        let mut document = Map::new();
        document.insert("keys".to_owned(), keys.into());
        let further = [("spiffe_sequence", self.sequence), ("spiffe_refresh_hint", self.refresh_hint)];
        for (name, value) in further {
            document.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        Value::Object(document).to_string()
    }

    /// Its JWT keys as a plain JSON Web Key Set: validators do not know SPIFFE's `use`.
    #[must_use]
    pub fn key_set(&self) -> String {
        let keys: Vec<Value> = self.jwt_keys.iter().map(|key| Value::Object(key.jwk())).collect();
        json!({ "keys": keys }).to_string()
    }
}

impl JwtAuthority {
    fn jwk(&self) -> Map<String, Value> {
        let mut jwk = self.key.write();
        jwk.insert("kid".to_owned(), self.key_id.clone().into());
        jwk
    }
}

/// The place of a bundle in its whole history as one number: an authority that came back from a backup counts on in a
/// higher epoch. Epochs are seconds since 1970, so that it stays below what JavaScript counts to without loss (2^53).
#[must_use]
pub fn published_sequence(bundle: &TrustBundle) -> u64 {
    bundle.epoch.saturating_mul(1 << 20).saturating_add(bundle.sequence)
}

fn read(element: &Value) -> Result<Element, String> {
    let Value::Object(jwk) = element else { return Err("it is no object".to_owned()) };
    match jwk.get("use").and_then(Value::as_str) {
        Some(X509) => root(jwk).map(|root| root.map_or(Element::Ignored, Element::Root)),
        Some(JWT) => match PublicKey::read(jwk) {
            Ok(key) => Ok(Element::Jwt(JwtAuthority { key_id: key_id(jwk)?, key })),
            Err(JwkError::Unknown) => Ok(Element::Ignored),
            Err(error) => Err(error.to_string()),
        },
        _ => Ok(Element::Ignored),
    }
}

// X509-SVID 6.1.1: x5c holds the certificate; what follows it, and an element without one, is passed over.
fn root(jwk: &Map<String, Value>) -> Result<Option<Vec<u8>>, String> {
    let said = match PublicKey::read(jwk) {
        Ok(key) => key,
        Err(JwkError::Unknown) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let first = match jwk.get("x5c") {
        None => return Ok(None),
        Some(Value::Array(certificates)) => match certificates.first() {
            None => return Ok(None),
            Some(first) => first.as_str().ok_or("its x5c holds something else than texts")?,
        },
        Some(_) => return Err("its x5c is no list".to_owned()),
    };
    // Base64 is a third longer.
    if first.len() > 2 * MAX_ROOT_BYTES {
        return Err(format!("{} characters are no certificate", first.len()));
    }
    let der = STANDARD.decode(first).map_err(|_| "its x5c is not base64")?;
    // RFC 7517 4.7: the certificate's key is the one that the other members describe.
    if public_key(&der)?.is_none_or(|key| key != said) {
        return Err("the certificate in its x5c has another key".to_owned());
    }
    if !svid::may_issue(&der) {
        return Err("the certificate in its x5c may not sign certificates".to_owned());
    }
    Ok(Some(der))
}

fn public_key(der: &[u8]) -> Result<Option<PublicKey>, String> {
    let wrong = || "its x5c holds no certificate".to_owned();
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| wrong())?;
    if !rest.is_empty() {
        return Err(wrong());
    }
    Ok(PublicKey::of(certificate.public_key()))
}

// JWT-SVID 6.1.1.
fn key_id(jwk: &Map<String, Value>) -> Result<String, String> {
    match jwk.get("kid").and_then(Value::as_str) {
        Some(id) if (1..=MAX_KEY_ID_BYTES).contains(&id.len()) => Ok(id.to_owned()),
        _ => Err("it has no kid, which a JWT key must have".to_owned()),
    }
}
