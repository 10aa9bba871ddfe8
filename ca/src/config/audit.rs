//! `audit`: where and how the audit log is written.

use std::path::PathBuf;

use serde::Deserialize;

/// Where and how the audit log is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Audit {
    /// Its folder; `audit` in the state folder where none is given.
    pub dir: Option<PathBuf>,
    /// A file that has reached so many bytes is followed by another. None is ever removed by us.
    pub file_bytes: u64,
    /// What a certificate waits for.
    pub durability: Durability,
}

/// What a certificate waits for before it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Its record is written: the end of our process loses nothing, a power cut at most the last tenth of a second.
    #[default]
    Process,
    /// Its record is on disk: a power cut loses nothing, and each certificate waits for the disk.
    Machine,
}

impl Default for Audit {
    fn default() -> Self {
        // About 150,000 certificates.
        Self { dir: None, file_bytes: 64 * 1024 * 1024, durability: Durability::default() }
    }
}
