//! How a certified key is named where the key itself must not stand: by the SHA-256 of its SubjectPublicKeyInfo.

use aws_lc_rs::digest;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The hash of the key in `certificate` (DER), hexadecimal; of what is no certificate, that of nothing.
#[must_use]
pub fn key_hash(certificate: &[u8]) -> String {
    let parsed = X509Certificate::from_der(certificate).ok();
    let key = parsed.as_ref().map_or(&[][..], |(_, parsed)| parsed.public_key().raw);
    crate::hex::encode(digest::digest(&digest::SHA256, key).as_ref())
}
