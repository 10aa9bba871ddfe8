//! Why nothing was signed: one value, which the log, the metrics and every interface's answer come from.

use std::time::Duration;

use douane_proto::hint;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::{
    attest::{AttestError, ReviewError},
    audit::AuditError,
    authority::{IssueError, JwtError},
};

/// A full queue is worked off in less.
const OVERLOAD_WAIT: Duration = Duration::from_secs(1);
/// Who is told to come back at once would.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Why nothing was signed. Never holds a token or a key.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The evidence proves nothing.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The request cannot be signed, or the authority cannot sign.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The authority cannot sign a token.
    #[error(transparent)]
    Token(#[from] JwtError),
    /// Only a certificate of ours proves whose token is asked for.
    #[error("the connection shows no certificate; a token is given to whom its certificate proves")]
    NoCertificate,
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
    /// Too much for one source.
    #[error("too many requests from one address; come back in {} ms", .0.as_millis())]
    Source(Duration),
    /// Too much for one identity.
    #[error("too many certificates for one identity; come back in {} ms", .0.as_millis())]
    Identity(Duration),
    /// Our clock is behind what it said before.
    #[error(
        "our clock went back {0} s; nothing is signed until it has caught up, or the control plane is restarted"
    )]
    ClockWentBack(i64),
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
            Self::Issue(_) | Self::Token(_) => "sign",
            Self::NoCertificate => "no_certificate",
            Self::Audit(_) => "audit",
            Self::Malformed(_) => "malformed",
            Self::Impersonation => "impersonation",
            Self::Overload => "overload",
            Self::Source(_) => "source_budget",
            Self::Identity(_) => "identity_budget",
            Self::ClockWentBack(_) => "clock",
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
            Self::Attest(AttestError::Review(ReviewError::Away(_))) => {
                return Status::new(
                    Code::Unavailable,
                    "the Kubernetes API server cannot be asked now; come back",
                );
            }
            Self::Overload | Self::Attest(AttestError::Review(ReviewError::Busy)) => {
                return self.exhausted(OVERLOAD_WAIT);
            }
            Self::Attest(AttestError::Storage(_))
            | Self::Issue(_)
            | Self::Token(_)
            | Self::Audit(_)
            | Self::ClockWentBack(_) => {
                return Status::new(Code::Unavailable, "the authority cannot sign now");
            }
            Self::Attest(_) | Self::NoCertificate => Code::Unauthenticated,
            Self::Source(wait) | Self::Identity(wait) => return self.exhausted(*wait),
            Self::Broken => Code::Internal,
        };
        Status::new(code, self.to_string())
    }

    // With the time after which it is worth asking again, for our sidecars and for others.
    fn exhausted(&self, wait: Duration) -> Status {
        let (code, message) = (Code::ResourceExhausted, self.to_string());
        let wait = wait.max(SHORTEST_WAIT);
        let details = hint::details(code.into(), &message, wait);
        let mut metadata = MetadataMap::new();
        if let Ok(value) = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).to_string().parse() {
            metadata.insert(hint::RETRY_AFTER, value);
        }
        Status::with_details_and_metadata(code, message, details.into(), metadata)
    }
}
