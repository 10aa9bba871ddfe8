//! A certificate signing request becomes a public key that its sender holds the private half of. Nothing else of it is
//! read: names and extensions in a request are wishes of a stranger.
//!
//! Knows not for whom the key is (`attest`), nor what is signed (`sign`).

use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    },
    prelude::FromDer,
    public_key::PublicKey as Parsed,
    x509::SubjectPublicKeyInfo,
};

/// A P-256 request has about 250 bytes, RSA-4096 about 1,200; larger ones are refused unread.
pub(crate) const MAX_CSR_BYTES: usize = 8 * 1024;
/// Below, RSA is broken in sight; above, a verification costs more than it gives.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The one public exponent in use; small ones have a history, large ones cost time.
const RSA_EXPONENT: u32 = 65_537;

/// A public key of an allowed kind. One that exists came from a request that proved possession of the private key.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey {
    /// SubjectPublicKeyInfo, DER, exactly as in the request.
    spki: Vec<u8>,
    /// The key within it.
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More than 8 KiB.
    #[error("the request has {0} bytes, at most {MAX_CSR_BYTES} are read")]
    TooLong(usize),
    /// Not a PKCS#10 request, or bytes follow it.
    #[error("the request is not PKCS#10 in DER")]
    Malformed,
    /// The signature is not of the key in the request.
    #[error("the request's signature does not prove possession of its key")]
    NoProof,
    /// A kind of key that is not allowed.
    #[error("the request's key is not allowed: {0}")]
    Key(&'static str),
}

impl PublicKey {
    /// Reads a PKCS#10 request (DER).
    ///
    /// # Errors
    /// [`CsrError`]: what is unreadable, unproven or of another kind of key is refused.
    pub(crate) fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLong(der.len()));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let spki = &request.certification_request_info.subject_pki;
        let algorithm = allowed(spki)?;
        request.verify_signature().map_err(|_| CsrError::NoProof)?;
        Ok(Self { spki: spki.raw.to_vec(), bits: spki.subject_public_key.data.to_vec(), algorithm })
    }
}

// The kind comes from the key itself, never from the request's signature algorithm: a P-256 key may sign with SHA-384.
fn allowed(spki: &SubjectPublicKeyInfo<'_>) -> Result<&'static SignatureAlgorithm, CsrError> {
    let kind = &spki.algorithm.algorithm;
    if *kind == OID_SIG_ED25519 {
        return Ok(&rcgen::PKCS_ED25519);
    }
    if *kind == OID_PKCS1_RSAENCRYPTION {
        return rsa(spki);
    }
    if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(CsrError::Key("only P-256, P-384, Ed25519 and RSA are"));
    }
    match spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok()) {
        Some(curve) if curve == OID_EC_P256 => Ok(&rcgen::PKCS_ECDSA_P256_SHA256),
        Some(curve) if curve == OID_NIST_EC_P384 => Ok(&rcgen::PKCS_ECDSA_P384_SHA384),
        _ => Err(CsrError::Key("its curve is neither P-256 nor P-384")),
    }
}

fn rsa(spki: &SubjectPublicKeyInfo<'_>) -> Result<&'static SignatureAlgorithm, CsrError> {
    let Ok(Parsed::RSA(key)) = spki.parsed() else {
        return Err(CsrError::Key("its RSA key is unreadable"));
    };
    let modulus = key.modulus.iter().skip_while(|byte| **byte == 0);
    let bits = match modulus.clone().next() {
        Some(first) => modulus.count() * 8 - first.leading_zeros() as usize,
        None => 0,
    };
    if !RSA_BITS.contains(&bits) {
        return Err(CsrError::Key("its RSA key has less than 2048 or more than 4096 bits"));
    }
    let exponent = key
        .exponent
        .iter()
        .try_fold(0_u32, |sum, byte| sum.checked_mul(256).and_then(|sum| sum.checked_add(u32::from(*byte))));
    match exponent {
        Some(RSA_EXPONENT) => Ok(&rcgen::PKCS_RSA_SHA256),
        _ => Err(CsrError::Key("its RSA exponent is not 65537")),
    }
}

// How rcgen takes a public key. It writes the algorithm anew; `check` compares the result with `spki` byte by byte.
impl PublicKeyData for PublicKey {
    fn subject_public_key_info(&self) -> Vec<u8> {
        self.spki.clone()
    }

    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}
