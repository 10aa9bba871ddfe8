//! Where something was written, and why it could not be read.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use crate::yaml::Cause;

/// A line of a file, or an object of an API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file, as its reader named it; or `Kind namespace/name`.
    pub file: Arc<Path>,
    /// Counted from 1; 0 where there are no lines.
    pub line: u32,
}

/// Why a document (or a whole file) could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {}{what}; {mend}", Prefix(subject.as_deref().filter(|_| location.line > 0)))]
pub struct ResourceError {
    /// Where.
    pub location: Location,
    /// `Kind namespace/name`, as far as it could be read.
    pub subject: Option<String>,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
    /// Which sort of error it is.
    pub cause: Cause,
    /// What a broken law meant to govern; `None` when the document is surely no policy.
    pub doubt: Option<Doubt>,
}

/// What can still be read of a law that cannot be read whole. Where there is no last good law, what it names is
/// denied: the pods of the selector, else of the namespace, else no policies are served at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Doubt {
    /// What it would have restricted.
    pub law: DoubtedLaw,
    /// Its namespace; `None` when unreadable.
    pub namespace: Option<String>,
    /// Its name; `None` when unreadable.
    pub name: Option<String>,
    /// The labels that it selects by, empty for all pods of its scope; `None` when unreadable.
    pub selector: Option<BTreeMap<String, String>>,
}

/// What a law that cannot be read would have restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DoubtedLaw {
    /// Requests, by policies and tokens: all are denied.
    #[default]
    Requests,
    /// Connections (`PeerAuthentication`): those without a certificate are refused.
    Connections,
}

struct Prefix<'a>(Option<&'a str>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |subject| write!(f, "{subject}: "))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}
