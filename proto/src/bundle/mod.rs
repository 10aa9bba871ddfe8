//! The bundle of a trust domain as others read it: a SPIFFE bundle (Trust Domain and Bundle 4), which bundle endpoints serve,
//! and the bundles of other trust domains as sidecars receive them.
//!
//! Pure: knows neither where a document comes from nor whether it is newer than another. Which trust domain a document is
//! of, it does not say itself: whoever fetched it knows.
//! - `document`: the document, read and written; [`foreign`](ForeignBundle): what a sidecar is told of another domain
//! - `jwk`: public keys as JSON Web Keys

mod document;
mod foreign;
mod jwk;
#[cfg(test)]
mod tests;

pub use document::{BundleDocument, BundleError, JwtAuthority, MAX_BUNDLE_BYTES, published_sequence};
pub use foreign::ForeignBundle;
pub use jwk::{JwkError, PublicKey};
