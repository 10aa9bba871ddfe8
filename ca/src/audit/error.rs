//! Why something is not recorded.

use std::{io, path::PathBuf};

/// Why something is not recorded. Then it must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Another control plane writes there.
    #[error("another control plane writes the audit log in {path}; give this one a folder of its own", path = .0.display())]
    Locked(PathBuf),
    /// The folder cannot be used.
    #[error("use {path} for the audit log: {reason}", path = path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// The operating system's word.
        reason: String,
    },
    /// The disk is full or fails.
    #[error("write the audit log: {0}; make room or mend the disk, then it goes on by itself")]
    Write(String),
    /// The thread that writes has died.
    #[error("the audit log is closed")]
    Ended,
}

impl AuditError {
    pub(super) fn writing(error: &io::Error) -> Self {
        Self::Write(error.to_string())
    }
}
