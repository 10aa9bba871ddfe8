//! Why evidence proves nothing.

use std::io;

use douane_proto::{id::IdError, jwt::JwtError};

/// Why evidence proves nothing. Never holds the evidence itself.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Nothing was presented.
    #[error("there is no evidence; send a service account token or a join token")]
    NoEvidence,
    /// No key set is configured.
    #[error("service account tokens are not accepted here: no key set (jwks) is configured")]
    NotConfigured,
    /// There are no keys to verify with yet.
    #[error("the key set for service account tokens could not be read yet")]
    NoKeys,
    /// The token is not valid.
    #[error("the service account token is refused: {0}")]
    Token(#[from] JwtError),
    /// The token names no service account.
    #[error("the service account token has no valid claim {0:?}")]
    Claim(&'static str),
    /// The names make no identity.
    #[error("the evidence names no valid identity")]
    Id(#[from] IdError),
    /// Unknown or already spent: the same answer for both.
    #[error("the join token is unknown or already spent")]
    UnknownJoinToken,
    /// Too late.
    #[error("the join token is expired")]
    JoinTokenExpired,
    /// A namespace whose identities are ours.
    #[error("the identity of the control plane itself is not given away")]
    Reserved,
    /// The state folder failed.
    #[error("the state folder failed")]
    Storage(#[source] io::Error),
}

impl AttestError {
    /// A fixed word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoEvidence => "no_evidence",
            Self::NotConfigured => "not_configured",
            Self::NoKeys => "no_keys",
            Self::Token(_) => "token",
            Self::Claim(_) | Self::Id(_) => "claims",
            Self::UnknownJoinToken => "join_token_unknown",
            Self::JoinTokenExpired => "join_token_expired",
            Self::Reserved => "reserved",
            Self::Storage(_) => "storage",
        }
    }
}
