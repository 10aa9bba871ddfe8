//! The key sets that were fetched last, kept in the state folder: a control plane that starts while an issuer is away
//! serves what its predecessor served, for as long as that one would have.
//!
//! Knows not how a set is fetched (`source`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use douane_proto::resource::KeySource;
use serde::{Deserialize, Serialize};

use super::document;
use crate::state::{self, Readers, StateFolder};

/// A key set has 256 KiB at most; JSON writes some bytes as six.
const MAX_ENTRY_BYTES: u64 = 2 * 1024 * 1024;

/// The folder of key sets.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

/// A key set that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptSet {
    pub(super) set: String,
    /// Since it was fetched.
    pub(super) age: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    url: String,
    names: Names,
    /// Seconds since 1970.
    fetched: u64,
    set: String,
}

/// What stands behind the URL.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Names {
    Set,
    Configuration,
}

impl Kept {
    /// The one of a state folder.
    #[must_use]
    pub fn new(state: &StateFolder) -> Self {
        Self(state.key_sets())
    }

    /// All that is kept and not older than `keep_for`. What cannot be read is as if it were not kept, and said aloud.
    pub(super) fn load(&self, keep_for: Duration) -> BTreeMap<KeySource, KeptSet> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                tracing::error!(%error, folder = %self.0.display(), "the key sets that were fetched last cannot be read");
                return BTreeMap::new();
            }
            Ok(entries) => entries,
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let found = paths.filter_map(|path| {
            read(&path)
                .inspect_err(
                    |error| tracing::error!(%error, file = %path.display(), "a kept key set cannot be read"),
                )
                .ok()
        });
        found.filter(|(_, kept)| kept.age < keep_for).collect()
    }

    /// Keeps a set that was fetched just now. Slow.
    pub(super) fn keep(&self, source: &KeySource, set: &str) -> io::Result<()> {
        let Some((names, url)) = parts(source) else { return Ok(()) };
        let fetched = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let entry = Entry { url: url.to_owned(), names, fetched, set: set.to_owned() };
        state::private_folder(&self.0)?;
        state::write(&self.entry(source), &serde_json::to_vec(&entry)?, Readers::Owner)
    }

    /// Forgets one that counts no more. Slow.
    pub(super) fn forget(&self, source: &KeySource) -> io::Result<()> {
        state::remove(&self.entry(source)).map(drop)
    }

    // A URL may be longer than a file's name.
    fn entry(&self, source: &KeySource) -> PathBuf {
        let mark = match source {
            KeySource::Configuration(_) => "configuration ",
            KeySource::Set(_) | KeySource::Inline => "set ",
        };
        let text = format!("{mark}{}", super::place(source));
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let name = crate::hex::encode(hash.as_ref());
        self.0.join(format!("{name}.json"))
    }
}

fn parts(source: &KeySource) -> Option<(Names, &str)> {
    match source {
        KeySource::Inline => None,
        KeySource::Set(url) => Some((Names::Set, url)),
        KeySource::Configuration(url) => Some((Names::Configuration, url)),
    }
}

// One from the future is as old as can be: the clock was set.
fn read(path: &Path) -> io::Result<(KeySource, KeptSet)> {
    if fs::metadata(path)?.len() > MAX_ENTRY_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    let entry: Entry = serde_json::from_slice(&fs::read(path)?)?;
    let fetched = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(entry.fetched));
    let age = fetched.and_then(|fetched| SystemTime::now().duration_since(fetched).ok());
    let set = document::key_set(entry.set.as_bytes()).map_err(io::Error::other)?;
    let source = match entry.names {
        Names::Set => KeySource::Set(entry.url),
        Names::Configuration => KeySource::Configuration(entry.url),
    };
    Ok((source, KeptSet { set, age: age.unwrap_or(Duration::MAX) }))
}
