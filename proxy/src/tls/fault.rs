//! Why no session was established, in words that name the thing to mend. Knows nothing of how a peer is verified
//! (see `verify`), only how rustls' own errors read to an operator.

use std::io;

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::SvidError,
};
use rustls::{CertificateError, OtherError};

/// Intermediates read of a peer's chain. Ours has one; cross-signing may add another.
pub(super) const MAX_INTERMEDIATES: usize = 4;

/// Why no session was established.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The first bytes are no TLS record.
    #[error("the peer speaks plaintext where mutual TLS is required")]
    Plaintext,
    /// The peer did not prove to be who it must be.
    #[error("the peer's certificate is refused: {0}")]
    Peer(PeerFault),
    /// The peer refused us; the alert says why.
    #[error("the peer refused the handshake: {0}")]
    RefusedByPeer(String),
    /// We and the peer have no protocol over TLS in common.
    #[error("the peer speaks none of the protocols that were offered (ALPN)")]
    Alpn,
    /// Our own certificate, key or trust bundle cannot be used.
    #[error("our own identity cannot be used: {0}")]
    Own(String),
    /// The peer's TLS breaks the protocol, or is older than TLS 1.3.
    #[error("the handshake failed: {0}")]
    Protocol(String),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Handshake(io::Error),
}

/// What is wrong with a peer's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// It showed none.
    #[error("it presented no certificate")]
    Missing,
    /// Its leaf is no X509-SVID.
    #[error("{}", chain(.0))]
    Svid(SvidError),
    /// It belongs to a trust domain whose roots we do not hold.
    #[error("{id} is of another trust domain, with which {ours} is not federated")]
    TrustDomain {
        /// Who it claims to be.
        id: WorkloadId,
        /// Whose roots we hold.
        ours: TrustDomain,
    },
    /// The bundle holds no roots: nobody is trusted (Trust Domain and Bundle 4.1).
    #[error("the trust bundle of {0} is empty, nobody is trusted")]
    NobodyTrusted(TrustDomain),
    /// More intermediates than any chain of ours has.
    #[error("it presented {0} intermediates, at most {max} are read", max = MAX_INTERMEDIATES)]
    TooManyIntermediates(usize),
    /// A certificate of its chain has ended.
    #[error("{0}")]
    Expired(String),
    /// The path to a root of the bundle does not validate at this time.
    #[error("{0}")]
    Path(String),
    /// It is a valid workload, but not the one that was asked for.
    #[error("it is {actual}, expected was {expected}")]
    Unexpected {
        /// Whom we wanted to reach.
        expected: WorkloadId,
        /// Who answered.
        actual: WorkloadId,
    },
}

impl TlsError {
    /// What was wrong, for a metric.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Peer(fault) => match fault {
                PeerFault::Missing => "no_certificate",
                PeerFault::Svid(_) => "no_svid",
                PeerFault::TrustDomain { .. } => "other_trust_domain",
                PeerFault::NobodyTrusted(_) | PeerFault::TooManyIntermediates(_) | PeerFault::Path(_) => {
                    "untrusted"
                }
                PeerFault::Expired(_) => "expired",
                PeerFault::Unexpected { .. } => "unexpected_identity",
            },
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::Alpn => "alpn",
            Self::Own(_) => "own_identity",
            Self::Protocol(_) => "protocol",
            Self::Handshake(_) => "broken",
        }
    }
}

// By hand, not as sources: each message is whole by itself, and whoever prints causes would say everything twice.
impl From<PeerFault> for TlsError {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(fault)
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::Handshake(error)
    }
}

impl From<SvidError> for PeerFault {
    fn from(error: SvidError) -> Self {
        Self::Svid(error)
    }
}

impl From<PeerFault> for rustls::Error {
    fn from(fault: PeerFault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(fault))))
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(ref inner))) => {
                match inner.downcast_ref::<PeerFault>() {
                    Some(fault) => Self::Peer(fault.clone()),
                    None => Self::Peer(PeerFault::Path(error.to_string())),
                }
            }
            rustls::Error::InvalidCertificate(fault) => Self::Peer(match fault {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    PeerFault::Expired(path_fault(&fault))
                }
                fault => PeerFault::Path(path_fault(&fault)),
            }),
            rustls::Error::NoCertificatesPresented => Self::Peer(PeerFault::Missing),
            rustls::Error::AlertReceived(alert) => Self::RefusedByPeer(format!("{alert:?}")),
            rustls::Error::NoApplicationProtocol => Self::Alpn,
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// An error of a stream that hides one of rustls.
pub(super) fn from_io(error: io::Error) -> TlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => inner.clone().into(),
        None => TlsError::Handshake(error),
    }
}

/// An error of a stream whose bytes rustls refused.
pub(super) fn to_io(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn path_fault(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "no root of the trust bundle signed it (unknown issuer)".to_owned()
        }
        // Also what is found when a root has the issuer's name but not its key.
        CertificateError::BadSignature => {
            "no root of the trust bundle signed it (a signature in its chain does not fit)".to_owned()
        }
        other => other.to_string(),
    }
}

// `SvidError` keeps its cause behind `source`; one line is logged.
fn chain(error: &SvidError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
