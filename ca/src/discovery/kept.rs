//! The last good text of every resource file, kept in the state folder: a control plane that starts while a file is
//! broken serves what its predecessor served.
//!
//! Knows not what the texts mean (`file`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::{
    discovery::file::Past,
    state::{self, Readers, StateFolder},
};

/// A resource file has 1 MiB at most; JSON writes some bytes as six.
const MAX_ENTRY_BYTES: u64 = 8 * 1024 * 1024;

/// The folder of last good texts.
#[derive(Debug, Clone)]
pub(crate) struct Kept(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The file's absolute path.
    file: PathBuf,
    /// `None`: it was not there, and what came since could not be read.
    text: Option<String>,
}

impl Kept {
    pub(crate) fn new(state: &StateFolder) -> Self {
        Self(state.last_good())
    }

    /// All that is kept, by path. What cannot be read is as if it were not kept, and said aloud.
    pub(crate) fn load(&self) -> BTreeMap<PathBuf, Past> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => {
                tracing::error!(%error, folder = %self.0.display(), "the last good resources cannot be read");
                return BTreeMap::new();
            }
            Ok(entries) => entries,
        };
        let visible = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let paths = entries.flatten().map(|entry| entry.path()).filter(visible);
        let past = |entry: Entry| (entry.file, entry.text.map_or(Past::Absent, Past::Text));
        paths.filter_map(|path| read(&path)).map(past).collect()
    }

    /// Keeps what is known of a file.
    pub(crate) fn keep(&self, file: &Path, past: Past) -> io::Result<()> {
        let text = match past {
            Past::Unknown => return Ok(()),
            Past::Absent => None,
            Past::Text(text) => Some(text),
        };
        state::private_folder(&self.0)?;
        let entry = Entry { file: file.to_owned(), text };
        state::write(&self.entry(file), &serde_json::to_vec(&entry)?, Readers::Owner)
    }

    /// Forgets a file that is gone for good.
    pub(crate) fn forget(&self, file: &Path) -> io::Result<()> {
        state::remove(&self.entry(file)).map(drop)
    }

    // A path may be longer than a file's name.
    fn entry(&self, file: &Path) -> PathBuf {
        let hash = digest::digest(&digest::SHA256, file.as_os_str().as_encoded_bytes());
        let name = crate::hex::encode(hash.as_ref());
        self.0.join(format!("{name}.json"))
    }
}

fn read(path: &Path) -> Option<Entry> {
    let read = || -> io::Result<Entry> {
        if fs::metadata(path)?.len() > MAX_ENTRY_BYTES {
            return Err(io::Error::other("it is too large"));
        }
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    };
    read()
        .inspect_err(|error| {
            tracing::error!(%error, file = %path.display(), "a last good resource file cannot be read");
        })
        .ok()
}
