//! Until when anything that was signed may be valid: written down before it is signed, so that a control plane that was
//! killed knows when its last certificate has ended.
//!
//! Each control plane writes a file of its own, ahead of what it signs, so that not every signature waits for the disk. Of
//! replicas each has the one of its place, which nobody else removes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::state::{self, Disk, Item, Readers, Shelf, StateError, StateFolder};

/// The file is this much ahead, at most: seconds. So often it is written while certificates are signed.
const MOST_AHEAD: i64 = 900;
/// What is unreadable may stand for the longest certificate there is: seconds.
const LONGEST_LIFE: i64 = 24 * 3600;
/// Whoever has lost its place signs on until it knows, and clocks differ: seconds, generously.
const KNOWS_LATE: i64 = 180;
/// One number.
const MAX_FILE_BYTES: u64 = 4096;

/// The end of everything that was signed.
pub(crate) struct Horizon {
    kept: Kept,
    // Durable.
    until: AtomicI64,
    writing: Mutex<()>,
    // Nothing may be valid longer than what is written down.
    held: AtomicBool,
    /// Of all control planes that ran here before, seconds since 1970; 0: none signed anything that is still valid.
    pub(crate) before: i64,
}

// Where it is written down.
enum Kept {
    File(PathBuf, Disk),
    Shelf(Arc<dyn Shelf>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    signed_until: i64,
}

impl Horizon {
    /// Reads what others have left in the folder, and forgets what has ended.
    pub(crate) fn open(folder: &StateFolder, disk: Disk, now: i64) -> Result<Self, StateError> {
        if let Some(shelf) = folder.shelf() {
            let before = end_of(folder, shelf.replica(), now).unwrap_or(0);
            return Ok(Self::new(Kept::Shelf(Arc::clone(shelf)), before));
        }
        let replicas = folder.replicas();
        state::private_folder(&replicas).map_err(state::failed("make", &replicas))?;
        let mut before = 0;
        for entry in fs::read_dir(&replicas).map_err(state::failed("list", &replicas))? {
            let path = entry.map_err(state::failed("list", &replicas))?.path();
            if folder.is_of_another_replica(&path) {
                // Of one that may run now: whoever leads asks it, or counts with what it has left.
                continue;
            }
            if let Some(until) = end_of_file(&path, now) {
                before = before.max(until);
            } else {
                // What stays is removed at the next start.
                let _ = state::remove(&path);
            }
        }
        let random = || replicas.join(crate::hex::encode(&rand::random::<[u8; 8]>()));
        let file = folder.replica().map_or_else(random, |number| folder.horizon_of(number));
        Ok(Self::new(Kept::File(file, disk), before))
    }

    fn new(kept: Kept, before: i64) -> Self {
        let (until, held) = (AtomicI64::new(0), AtomicBool::new(false));
        Self { kept, until, writing: Mutex::new(()), held, before }
    }

    /// Makes sure that the disk knows of something that is valid until `not_after`.
    pub(crate) fn cover(&self, not_after: i64, now: i64) -> io::Result<()> {
        if not_after <= self.until.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if not_after <= self.until.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.held.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "the last change of the state could not be stored; it is tried again",
            ));
        }
        let ahead = (not_after.saturating_sub(now) / 4).clamp(1, MOST_AHEAD);
        // Nor may what lies there forget whoever had the place before us.
        let until = not_after.saturating_add(ahead).max(self.before);
        let written = serde_json::to_vec(&Written { signed_until: until })?;
        match &self.kept {
            Kept::File(file, disk) => disk.write(file, &written, Readers::Owner)?,
            Kept::Shelf(shelf) => shelf.write(Item::Horizon(shelf.replica()), &written)?,
        }
        self.until.store(until, Ordering::Release);
        Ok(())
    }

    /// From now on the end stays where it is.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// It may move again.
    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// The end of everything that was signed here, until now and before.
    pub(crate) fn until(&self) -> i64 {
        self.until.load(Ordering::Acquire).max(self.before)
    }
}

/// Until when anything that a replica has signed may be valid; `None`: it has ended. What cannot be read may stand for a day.
pub(crate) fn end_of(folder: &StateFolder, number: u8, now: i64) -> Option<i64> {
    match folder.shelf() {
        Some(shelf) => end_of_item(shelf, Item::Horizon(number), now),
        None => end_of_file(&folder.horizon_of(number), now),
    }
}

/// Until when anything may be valid that was signed by whoever said nothing of it, or whose word was lost.
pub(crate) fn end_of_unknown(folder: &StateFolder, now: i64) -> Option<i64> {
    end_of_item(folder.shelf()?, Item::Before, now)
}

/// What is written down where nothing is known of what was signed until `now`.
pub(crate) fn unknown(now: u64) -> String {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let until = now.saturating_add(LONGEST_LIFE).saturating_add(KNOWS_LATE);
    serde_json::json!({ "signedUntil": until }).to_string()
}

fn end_of_item(shelf: &Arc<dyn Shelf>, item: Item, now: i64) -> Option<i64> {
    match shelf.read(item) {
        Ok(None) => None,
        Ok(Some(bytes)) => still_open(&shelf.name(item), parse(&bytes), now),
        Err(_) => still_open(&shelf.name(item), None, now),
    }
}

fn end_of_file(path: &Path, now: i64) -> Option<i64> {
    if path.exists() { still_open(path, read(path), now) } else { None }
}

fn still_open(path: &Path, until: Option<i64>, now: i64) -> Option<i64> {
    let until = until.unwrap_or_else(|| {
        tracing::warn!(file = %path.display(), "it cannot be read; what was signed may be valid for a day");
        now.saturating_add(LONGEST_LIFE)
    });
    Some(until).filter(|until| *until > now)
}

fn parse(bytes: &[u8]) -> Option<i64> {
    Some(serde_json::from_slice::<Written>(bytes).ok()?.signed_until)
}

fn read(path: &Path) -> Option<i64> {
    let hidden = path.file_name()?.to_str()?.starts_with('.');
    if hidden {
        // A write that a crash cut short: the certificate was never signed.
        return Some(0);
    }
    if fs::metadata(path).ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    parse(&fs::read(path).ok()?)
}
