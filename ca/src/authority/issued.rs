//! What comes back from the authority: a certificate, or why there is none.
//!
//! Values only; `pen` signs.

use douane_proto::svid::SvidError;

use super::{csr::CsrError, sign::SignError};

/// A certificate that was signed for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER: the leaf, then its intermediate.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's serial number in hexadecimal.
    pub serial: String,
    /// The end of the leaf's life, seconds since 1970.
    pub not_after: i64,
    /// The id of the root that vouches for it.
    pub authority: String,
    /// Key identifiers of those who vouch for it, the signer first.
    pub key_ids: Vec<Vec<u8>>,
}

/// When the authority's own certificates end, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The root.
    pub root: i64,
    /// The intermediate in use.
    pub intermediate: i64,
}

/// Why a request for a certificate failed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request itself is at fault.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The authority could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The authority's own certificate is not what it should be.
    #[error("our own certificate")]
    Own(#[from] SvidError),
}
