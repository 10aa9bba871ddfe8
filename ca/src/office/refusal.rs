//! Why nothing was signed: one value, which the log, the metrics and every interface's answer come from.

use tonic::{Code, Status};

use crate::{attest::AttestError, audit::AuditError, authority::IssueError};

/// Why nothing was signed. Never holds a token or a key.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The evidence proves nothing.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The request cannot be signed, or the authority cannot sign.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// It cannot be recorded: then it does not happen.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The request breaks the rules of its interface.
    #[error("the request holds {0}")]
    Malformed(&'static str),
    /// A node asks for one of its pods.
    #[error(
        "a certificate for somebody else is asked for (ImpersonatedIdentity): there are no node identities here, each pod asks with its own token"
    )]
    Impersonation,
    /// Too much to do.
    #[error("too many requests at once; come back")]
    Overload,
    /// A worker died over it: a bug of ours.
    #[error("the request could not be processed")]
    Broken,
}

impl Refusal {
    /// A fixed word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Attest(error) => error.label(),
            Self::Issue(IssueError::Csr(_)) => "csr",
            Self::Issue(_) => "sign",
            Self::Audit(_) => "audit",
            Self::Malformed(_) => "malformed",
            Self::Impersonation => "impersonation",
            Self::Overload => "overload",
            Self::Broken => "broken",
        }
    }

    /// The answer on the wire. What the caller can mend is said; what went wrong inside is not.
    #[must_use]
    pub fn status(&self) -> Status {
        let code = match self {
            Self::Attest(AttestError::NoEvidence) | Self::Issue(IssueError::Csr(_)) | Self::Malformed(_) => {
                Code::InvalidArgument
            }
            Self::Impersonation => Code::PermissionDenied,
            Self::Attest(AttestError::NoKeys) => Code::Unavailable,
            Self::Attest(AttestError::Storage(_)) | Self::Issue(_) | Self::Audit(_) => {
                return Status::new(Code::Unavailable, "the authority cannot sign now");
            }
            Self::Attest(_) => Code::Unauthenticated,
            Self::Overload => Code::ResourceExhausted,
            Self::Broken => Code::Internal,
        };
        Status::new(code, self.to_string())
    }
}
