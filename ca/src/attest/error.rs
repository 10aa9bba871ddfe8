//! Why evidence proves nothing.

use std::io;

use douane_proto::{id::IdError, jwt::JwtError};

use super::review::ReviewError;

/// Why evidence proves nothing. Never holds the evidence itself.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Nothing was presented.
    #[error("there is no evidence; send a service account token or a join token")]
    NoEvidence,
    /// No key set is configured.
    #[error("tokens are not accepted here: no key set (jwks) is configured")]
    NotConfigured,
    /// There are no keys to verify with yet.
    #[error("the key set of the token's issuer could not be read yet")]
    NoKeys,
    /// The token is not valid.
    #[error("the token is refused: {0}")]
    Token(#[from] JwtError),
    /// The token names no service account.
    #[error("the service account token has no valid claim {0:?}")]
    Claim(&'static str),
    /// In a cluster a token is as good as its pod lives.
    #[error(
        "the service account token is bound to no pod; only one that is projected into a pod (or made with \
         --bound-object-kind Pod) proves who asks"
    )]
    Unbound,
    /// The API server does not confirm it.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// No rule of the issuer takes the token's claims.
    #[error("no rule of its issuer (oidc, identities, where) takes the token's claims")]
    Unmapped,
    /// A claim that the identity is to be made of.
    #[error("the token's claim {0:?} is missing, or is no name as it stands (a to z, 0 to 9, -)")]
    UnmappedClaim(String),
    /// The names make no identity.
    #[error("the evidence names no valid identity")]
    Id(#[from] IdError),
    /// Unknown or already spent: the same answer for both.
    #[error("the join token is unknown or already spent")]
    UnknownJoinToken,
    /// Too late.
    #[error("the join token is expired")]
    JoinTokenExpired,
    /// A certificate that does not renew itself.
    #[error(
        "the connection's certificate does not renew itself: it did not come by a join token, or a later one has taken \
         its place; present a token"
    )]
    NotJoined,
    /// Another certificate of the same registration was shown meanwhile.
    #[error("a later certificate has taken the place of this one; present a new join token")]
    Superseded,
    /// An operator ended it.
    #[error("the registration was revoked; present a new join token")]
    Revoked,
    /// A process of a user whom no rule names.
    #[error("processes of user {0} have no identity here (unix, identities)")]
    UnknownUser(u32),
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
            Self::Unbound => "unbound",
            Self::Review(error) => error.label(),
            Self::Unmapped | Self::UnmappedClaim(_) => "unmapped",
            Self::UnknownJoinToken => "join_token_unknown",
            Self::JoinTokenExpired => "join_token_expired",
            Self::NotJoined => "not_joined",
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
            Self::UnknownUser(_) => "unknown_user",
            Self::Reserved => "reserved",
            Self::Storage(_) => "storage",
        }
    }

    /// Does it say something of us, and nothing of who asks?
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let of_review = matches!(self, Self::Review(ReviewError::Away(_) | ReviewError::Busy));
        of_review || matches!(self, Self::NoKeys | Self::Storage(_))
    }
}
