//! The key that signs JWT-SVIDs: P-256, ES256, with the root's id as `kid`.
//!
//! Knows of claims only when they end: nothing is signed that never ends, ends after a day, or after its root.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::sign::SignError;

/// As the longest certificate.
const MAX_LIFE: i64 = 24 * 3600;
/// Claims have some hundred bytes.
const MAX_CLAIMS_BYTES: usize = 16 * 1024;

/// Why a token was not signed.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The claims cannot be signed.
    #[error("the claims are no JSON object with a whole number `exp`, or longer than 16 KiB")]
    Claims,
    /// They end in the past, or too late.
    #[error("the claims end at {exp}; a token ends within a day, and before its authority does ({until})")]
    Life {
        /// `exp`.
        exp: i64,
        /// The latest allowed.
        until: i64,
    },
    /// The library or the disk refuses.
    #[error("signing failed: {0}")]
    Failed(String),
}

/// Signs tokens.
pub(crate) struct JwtSigner {
    key: EcdsaKeyPair,
    header: String,
}

#[derive(Deserialize)]
struct Ends {
    exp: i64,
}

/// A new private key, PKCS#8 DER.
pub(crate) fn new_key() -> Result<Zeroizing<Vec<u8>>, SignError> {
    let mut key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let der = Zeroizing::new(key.serialize_der());
    zeroize::Zeroize::zeroize(&mut key);
    Ok(der)
}

/// SubjectPublicKeyInfo (DER) of a private key.
pub(crate) fn public_key(pkcs8: &[u8]) -> Result<Vec<u8>, SignError> {
    let mut key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.into(), &rcgen::PKCS_ECDSA_P256_SHA256)?;
    let public = key.subject_public_key_info();
    zeroize::Zeroize::zeroize(&mut key);
    Ok(public)
}

impl JwtSigner {
    pub(crate) fn new(key_id: &str, pkcs8: &[u8]) -> Result<Self, SignError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| SignError::Stored("its JWT key cannot be read"))?;
        let header = serde_json::json!({ "alg": "ES256", "kid": key_id, "typ": "JWT" }).to_string();
        Ok(Self { key, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// Signs claims (a JSON object); also says when they end.
    pub(crate) fn sign(&self, claims: &[u8], not_after: i64, now: i64) -> Result<(String, i64), JwtError> {
        if claims.len() > MAX_CLAIMS_BYTES || claims.first() != Some(&b'{') {
            return Err(JwtError::Claims);
        }
        let Ends { exp } = serde_json::from_slice(claims).map_err(|_| JwtError::Claims)?;
        let until = not_after.min(now.saturating_add(MAX_LIFE));
        if exp <= now || exp > until {
            return Err(JwtError::Life { exp, until });
        }
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| JwtError::Failed("no signature".to_owned()))?;
        Ok((format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())), exp))
    }
}
