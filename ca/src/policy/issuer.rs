//! An issuer of tokens for one run of tests: good ones, and ones that are wrong in exactly one way.
//!
//! Its keys live as long as the run. Knows not where in a request a token is put (`cases/token`).

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use serde_json::{Map, Value};

/// By which the key set names the key.
const KEY_ID: &str = "test";
/// Which no key set has.
const UNKNOWN_KEY_ID: &str = "unknown";
/// So far from now are the times of tokens that are valid, expired or not valid yet: clocks never differ so much.
const HOUR: u64 = 3600;

/// Signs tokens.
pub(crate) struct Issuer {
    key: EncodingKey,
    /// Has the same id, and is not in the key set.
    other: EncodingKey,
    public_pem: String,
    key_set: String,
    now: u64,
}

/// Which sort of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Valid,
    Expired,
    NotYetValid,
    BadSignature,
    UnknownKey,
    Malformed,
    NoAlgorithm,
    SymmetricWithPublicKey,
}

/// Why there is no issuer, or no token.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// No randomness.
    #[error("make a key for the tests' tokens")]
    Key,
    /// As the library says.
    #[error("sign a token for the tests")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// As the library says.
    #[error("write a token for the tests")]
    Json(#[from] serde_json::Error),
}

impl Issuer {
    /// With fresh keys; `now`: seconds since 1970.
    pub(crate) fn new(now: u64) -> Result<Self, IssuerError> {
        let pair = pair()?;
        let key = encoding(&pair)?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| IssuerError::Key)?;
        Ok(Self {
            key,
            other: encoding(&self::pair()?)?,
            public_pem: pem(public.as_ref()),
            key_set: serde_json::to_string(&JwkSet { keys: vec![jwk] })?,
            now,
        })
    }

    /// The JSON Web Key Set that verifies its good tokens.
    pub(crate) fn key_set(&self) -> &str {
        &self.key_set
    }

    /// A token of this sort with these claims. `exp` is added where it is absent, and left out where it is `null`.
    pub(crate) fn mint(&self, sort: Sort, mut claims: Map<String, Value>) -> Result<String, IssuerError> {
        match claims.get("exp") {
            Some(Value::Null) => drop(claims.remove("exp")),
            Some(_) => {}
            None => drop(claims.insert("exp".to_owned(), (self.now + 2 * HOUR).into())),
        }
        match sort {
            Sort::Expired => drop(claims.insert("exp".to_owned(), self.now.saturating_sub(HOUR).into())),
            Sort::NotYetValid => drop(claims.insert("nbf".to_owned(), (self.now + HOUR).into())),
            _ => {}
        }
        let header = |algorithm| Header { kid: Some(KEY_ID.to_owned()), ..Header::new(algorithm) };
        let asymmetric = header(Algorithm::ES256);
        Ok(match sort {
            Sort::Valid | Sort::Expired | Sort::NotYetValid => encode(&asymmetric, &claims, &self.key)?,
            Sort::BadSignature => encode(&asymmetric, &claims, &self.other)?,
            Sort::UnknownKey => {
                let header = Header { kid: Some(UNKNOWN_KEY_ID.to_owned()), ..asymmetric };
                encode(&header, &claims, &self.key)?
            }
            Sort::SymmetricWithPublicKey => {
                let secret = EncodingKey::from_secret(self.public_pem.as_bytes());
                encode(&header(Algorithm::HS256), &claims, &secret)?
            }
            Sort::NoAlgorithm => {
                let header = format!(r#"{{"alg":"none","typ":"JWT","kid":"{KEY_ID}"}}"#);
                let claims = serde_json::to_vec(&claims)?;
                let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
                format!("{}.{}.", part(header.as_bytes()), part(&claims))
            }
            Sort::Malformed => "this-is-no-token".to_owned(),
        })
    }
}

fn pair() -> Result<EcdsaKeyPair, IssuerError> {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| IssuerError::Key)
}

fn encoding(pair: &EcdsaKeyPair) -> Result<EncodingKey, IssuerError> {
    let document = pair.to_pkcs8v1().map_err(|_| IssuerError::Key)?;
    Ok(EncodingKey::from_ec_der(document.as_ref()))
}

// RFC 7468: 64 characters a line.
fn pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    for (index, char) in encoded.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(char);
    }
    pem + "\n-----END PUBLIC KEY-----\n"
}

#[cfg(test)]
mod tests {
    use douane_proto::jwt::{Expected, JwtError, Keys, Purpose, verify};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_good_token_verifies_and_every_other_sort_fails_for_its_own_reason() {
        let issuer = Issuer::new(NOW).unwrap();
        let keys = Keys::parse(issuer.key_set().as_bytes()).unwrap();
        let claims = json!({"iss": "i", "sub": "s"}).as_object().unwrap().clone();
        let check = |sort| {
            let token = issuer.mint(sort, claims.clone()).unwrap();
            let expected = Expected { issuer: Some("i"), audiences: &[], purpose: Purpose::Request };
            verify(&token, &keys, expected, NOW).map(|_| ())
        };

        assert_eq!(check(Sort::Valid), Ok(()));
        assert_eq!(check(Sort::Expired), Err(JwtError::Expired(HOUR)));
        assert_eq!(check(Sort::NotYetValid), Err(JwtError::NotYet(HOUR)));
        assert_eq!(check(Sort::BadSignature), Err(JwtError::Signature));
        assert_eq!(check(Sort::UnknownKey), Err(JwtError::UnknownKey));
        for sort in [Sort::Malformed, Sort::NoAlgorithm, Sort::SymmetricWithPublicKey] {
            assert!(check(sort).is_err(), "{sort:?}");
        }
    }

    #[test]
    fn a_null_end_is_no_end() {
        let issuer = Issuer::new(NOW).unwrap();
        let claims = json!({"exp": null}).as_object().unwrap().clone();
        let token = issuer.mint(Sort::Valid, claims).unwrap();
        let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        assert_eq!(payload, b"{}");
    }
}
