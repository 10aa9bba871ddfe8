//! Why a connection is not secured.

use std::{io, time::Duration};

/// From the accepted connection to the finished handshake; a slow one must not hold a place for long.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Why no listener could be secured, or a connection was not.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our own certificate could not be made.
    #[error("make our own certificate")]
    Own(#[from] crate::authority::IssueError),
    /// Our own certificate could not be recorded.
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
    /// The library refuses the configuration, or the handshake failed.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Roots that nothing can be verified by.
    #[error("the trust bundle holds no usable root")]
    Roots(#[from] rustls::server::VerifierBuilderError),
    /// The connection broke in the handshake.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client was too slow.
    #[error("no handshake within {HANDSHAKE_LIMIT:?}")]
    Slow,
    /// Its address has too many connections that have not proven an identity.
    #[error("too many connections without an identity, of this address or in all")]
    Crowded,
    /// A certificate or key of the bundle endpoint that cannot be read.
    #[error("read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A server is to be known by a bundle in which nobody is trusted.
    #[error("the bundle that it is to be known by holds no root; give a new first bundle")]
    NoRoots,
    /// A file of trusted certificates holds none.
    #[error("the file holds no PEM certificate")]
    NoCertificate,
}
