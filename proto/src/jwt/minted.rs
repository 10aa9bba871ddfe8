//! Issuers with throwaway keys, for tests of what reads tokens.

use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use serde_json::Value;

use super::keys::Keys;

/// Every algorithm that a request's token may have.
pub(crate) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// RFC 8410 10.3, before the seed.
const ED25519_HEAD: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Who signs tokens.
pub(crate) struct Issuer {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Issuer {
    /// With a fresh ES256 key of this id.
    pub(crate) fn new(id: &str) -> Self {
        Self::of(Algorithm::ES256, id)
    }

    /// With a fresh key of this id for this algorithm.
    pub(crate) fn of(algorithm: Algorithm, id: &str) -> Self {
        let pair = |kind| rcgen::KeyPair::generate_for(kind).unwrap().serialize_der();
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_der(&pair(&rcgen::PKCS_ECDSA_P256_SHA256)),
            Algorithm::ES384 => EncodingKey::from_ec_der(&pair(&rcgen::PKCS_ECDSA_P384_SHA384)),
            // The library wants version 1 of PKCS #8: the same without the public key.
            Algorithm::EdDSA => {
                let seed = &pair(&rcgen::PKCS_ED25519)[16..48];
                EncodingKey::from_ed_der(&[ED25519_HEAD, seed].concat())
            }
            // The library wants PKCS #1, which is what PKCS #8 holds behind its 26 bytes of head.
            _ => EncodingKey::from_rsa_der(&pair(&rcgen::PKCS_RSA_SHA256)[26..]),
        };
        Self { id: id.to_owned(), algorithm, key }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.id, claims)
    }

    /// Names another key than the one that it signs with.
    pub(crate) fn sign_as(&self, id: &str, claims: &Value) -> String {
        self.sign_with(&Header { kid: Some(id.to_owned()), ..Header::new(self.algorithm) }, claims)
    }

    pub(crate) fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }

    pub(crate) fn key(&self) -> &EncodingKey {
        &self.key
    }

    pub(crate) fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        jwk
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::parse(self.key_set_text().as_bytes()).unwrap()
    }

    pub(crate) fn key_set_text(&self) -> String {
        Self::key_set(&[self])
    }

    pub(crate) fn key_set(issuers: &[&Self]) -> String {
        let keys = issuers.iter().map(|issuer| issuer.jwk()).collect();
        serde_json::to_string(&JwkSet { keys }).unwrap()
    }
}
