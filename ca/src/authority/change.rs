//! What may be asked of the authority, why it is refused, and what has changed.
//!
//! Words only; `rotation` does it.

use super::{keep::OpenError, sign::SignError};

/// So many roots, or marks on intermediates, are kept at once; each ends by itself.
pub(crate) const MOST_AT_ONCE: usize = 8;

/// Why the state is not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The disk refuses.
    #[error(transparent)]
    State(#[from] OpenError),
    /// No certificate could be made.
    #[error("making a certificate")]
    Sign(#[from] SignError),
    /// Another root is on its way.
    #[error(
        "root {id} is on its way already ({phase}){lagging}; `douane ca status` says what it waits for, `--force` does not \
         wait"
    )]
    OnItsWay {
        /// Which.
        id: String,
        /// How far it is.
        phase: &'static str,
        /// Whom it waits for, in words.
        lagging: String,
    },
    /// Too much at once.
    #[error("there are {MOST_AT_ONCE} authorities that are on their way out: wait until one of them is gone")]
    TooMany,
    /// The root is somebody else's.
    #[error(
        "the root is not ours to replace: put the new chain and key into the files of `authority.root`, or rotate the \
         upstream's root; it is then published, and signs once everybody knows it"
    )]
    NotOurs,
    /// Nobody of that name.
    #[error(
        "there is no authority {0:?}: give the id of a root or an intermediate as `douane ca status` shows it, or the \
         authority key identifier (40 hexadecimal digits) of a certificate that the intermediate signed"
    )]
    Unknown(String),
    /// Another replica leads.
    #[error(
        "another replica leads, and it alone changes the authority and tells of it: ask that one (in a cluster `kubectl get lease \
         -n douane-system douane-authority` names its pod)"
    )]
    Follows,
    /// Nothing to be changed.
    #[error("authority {0} is tainted already")]
    Tainted(String),
}

impl RotateError {
    /// Does somebody else go on with the state, or in our place, so that we must stop?
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        match self {
            Self::State(OpenError::Overtaken { .. }) => true,
            Self::State(OpenError::State(error)) => error.is_place_lost(),
            _ => false,
        }
    }
}

/// One change of the authority, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The id of the root or intermediate.
    pub authority: String,
    /// What happened to it.
    pub what: &'static str,
}

/// Did anything change?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    No,
    Yes,
}

/// Is a step done although it breaks somebody?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It waits for them.
    No,
    /// It does not.
    Yes,
}
