//! Who joined by a token, and renews by the certificate that followed from it: a token works once, a machine lives longer.
//!
//! Each registration remembers the serial number that was last shown, and those that were given out since. Whoever shows
//! one of the latter makes it the one, and the others void: of two who hold one registration, by theft of a key, one is
//! refused as soon as the other has renewed. No certificate that came by other evidence renews here, not even one of the
//! same identity. Knows not the wire (`issue`).

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use douane_proto::id::{TrustDomain, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::{
    attest::error::AttestError,
    state::{self, Readers, StateFolder},
};

/// Certificates that are given out for one that was shown: answers get lost, and an application's own is asked for with
/// its sidecar's. The oldest is forgotten first.
const MAX_OFFERED: usize = 8;
/// An entry has about 500 bytes.
const MAX_ENTRY_BYTES: u64 = 8192;
/// What is not known is looked for on the disk so often: another control plane may have written it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A registration whose last certificate has ended is listed for so long.
const KEPT_AFTER_END: i64 = 24 * 3600;
const REVOKED: &str = "revoked";
const LOCK: &str = "lock";
/// Writing an entry takes a disk some milliseconds; whoever asked is told to come again after this.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// Between two tries for it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The registrations of one state folder.
#[derive(Debug)]
pub(crate) struct Joined {
    folder: PathBuf,
    trust_domain: TrustDomain,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// Serial number -> registration.
    by_serial: HashMap<String, String>,
    looked: Option<Instant>,
}

/// One who joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    /// Seconds since 1970.
    pub(crate) joined: u64,
    /// The certificate that was shown last; before the first renewal: the first one.
    current: String,
    /// Given out since.
    offered: Vec<String>,
    /// When the last certificate ends, seconds since 1970.
    pub(crate) ends: i64,
}

/// A renewal that may go on.
#[derive(Debug)]
pub(crate) struct Renewal {
    joined: Arc<Joined>,
    registration: String,
    shown: String,
}

impl Joined {
    pub(crate) fn new(state: &StateFolder, trust_domain: TrustDomain) -> Self {
        Self { folder: state.joined(), trust_domain, index: Mutex::default() }
    }

    /// Whoever spent the token `registration` got this certificate, and renews by it from now on. Durable.
    pub(crate) fn register(
        &self,
        registration: &str,
        id: &WorkloadId,
        (serial, ends): (&str, i64),
        now: u64,
    ) -> Result<(), AttestError> {
        let entry = Entry {
            namespace: id.namespace().to_owned(),
            service_account: id.service_account().to_owned(),
            joined: now,
            current: plain(serial),
            offered: Vec::new(),
            ends,
        };
        let mut index = self.index();
        state::private_folder(&self.folder).map_err(AttestError::Storage)?;
        let _alone = self.alone()?;
        self.write(registration, &entry)?;
        index.by_serial.insert(entry.current, registration.to_owned());
        Ok(())
    }

    /// May `id`, who shows the certificate `serial`, renew by it?
    pub(crate) fn find(self: &Arc<Self>, id: &WorkloadId, serial: &str) -> Result<Renewal, AttestError> {
        let shown = plain(serial);
        let mut index = self.index();
        if !index.by_serial.contains_key(&shown) && index.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            index.looked = Some(Instant::now());
            self.look(&mut index);
        }
        let registration = index.by_serial.get(&shown).ok_or(AttestError::NotJoined)?.clone();
        drop(index);
        let entry = self.open(&registration)?;
        entry.admits(&shown)?;
        let owner = WorkloadId::new(&self.trust_domain, &entry.namespace, &entry.service_account)?;
        // A serial number is 128 random bits; somebody else's certificate with it was not signed by us.
        if owner != *id {
            return Err(AttestError::NotJoined);
        }
        Ok(Renewal { joined: Arc::clone(self), registration, shown })
    }

    /// Removes what has ended long ago.
    pub(crate) fn sweep(&self, now: u64) {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut index = self.index();
        for (registration, entry) in list(&self.folder) {
            if entry.ends.saturating_add(KEPT_AFTER_END) < now {
                let path = self.folder.join(&registration);
                let _ = state::remove(&path);
                let _ = state::remove(&revoked(&path));
                index.by_serial.retain(|_, known| *known != registration);
            }
        }
    }

    // Other replicas read and write the same entries: one at a time, for as long as a disk takes.
    fn alone(&self) -> Result<fs::File, AttestError> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(self.folder.join(LOCK)).map_err(AttestError::Storage)?;
        held_within(&lock, LOCK_LIMIT).map_err(AttestError::Storage)?;
        Ok(lock)
    }

    fn look(&self, index: &mut Index) {
        index.by_serial.clear();
        for (registration, entry) in list(&self.folder) {
            for serial in entry.offered.into_iter().chain([entry.current]) {
                index.by_serial.insert(serial, registration.clone());
            }
        }
    }

    // The file is the truth: whoever revokes writes beside it.
    fn open(&self, registration: &str) -> Result<Entry, AttestError> {
        let path = self.folder.join(registration);
        let entry = read(&path).map_err(AttestError::Storage)?.ok_or(AttestError::NotJoined)?;
        if is_revoked(&path).map_err(AttestError::Storage)? {
            return Err(AttestError::Revoked);
        }
        Ok(entry)
    }

    fn write(&self, registration: &str, entry: &Entry) -> Result<(), AttestError> {
        let text = serde_json::to_vec(entry).map_err(io::Error::other);
        text.and_then(|text| state::write(&self.folder.join(registration), &text, Readers::Owner))
            .map_err(AttestError::Storage)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewal {
    /// The first digits of the registration, as the operator's list shows them.
    pub(crate) fn name(&self) -> String {
        short(&self.registration)
    }

    /// The certificate `serial` is about to be given out: from now on it counts. Durable.
    pub(crate) fn settle(&self, (serial, ends): (&str, i64)) -> Result<(), AttestError> {
        let mut index = self.joined.index();
        let _alone = self.joined.alone()?;
        // Read again: others may have renewed, or revoked, since it was found.
        let mut entry = self.joined.open(&self.registration)?;
        entry.admits(&self.shown)?;
        if entry.current != self.shown {
            entry.current.clone_from(&self.shown);
            entry.offered.clear();
        }
        entry.offered.push(plain(serial));
        if entry.offered.len() > MAX_OFFERED {
            entry.offered.remove(0);
        }
        entry.ends = entry.ends.max(ends);
        self.joined.write(&self.registration, &entry)?;
        // Who revoked meanwhile did not see this one.
        self.joined.open(&self.registration)?;
        index.by_serial.retain(|_, known| *known != self.registration);
        for serial in entry.offered.into_iter().chain([entry.current]) {
            index.by_serial.insert(serial, self.registration.clone());
        }
        Ok(())
    }
}

impl Entry {
    fn admits(&self, serial: &str) -> Result<(), AttestError> {
        if self.current == serial || self.offered.iter().any(|offered| offered == serial) {
            return Ok(());
        }
        Err(AttestError::Superseded)
    }
}

/// Everybody who joined, with what their registration is called.
pub(crate) fn list(folder: &Path) -> Vec<(String, Entry)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let known = paths.filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        // The files beside have another ending, or begin with a dot.
        let named = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((name, read(&path).ok()??)).filter(|_| named)
    });
    known.collect()
}

/// Was the registration in this file revoked?
pub(crate) fn is_revoked(path: &Path) -> io::Result<bool> {
    revoked(path).try_exists()
}

/// Ends a registration, durably: from now on nobody renews by it.
pub(crate) fn revoke(path: &Path) -> io::Result<()> {
    state::write(&revoked(path), b"", Readers::Owner)
}

/// The first digits of a hash, which tell it from others and give nothing away.
pub(crate) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn revoked(path: &Path) -> PathBuf {
    path.with_extension(REVOKED)
}

fn read(path: &Path) -> io::Result<Option<Entry>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if metadata.len() > MAX_ENTRY_BYTES {
        return Err(io::Error::other("a registration is too large"));
    }
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => serde_json::from_slice(&read?).map(Some).map_err(io::Error::other),
    }
}

// A certificate's encoding has no leading zeros, our own has.
fn plain(serial: &str) -> String {
    serial.trim_start_matches('0').to_owned()
}

// A replica that is stopped while it holds the lock must not stop the others with it.
fn held_within(lock: &fs::File, limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if Instant::now() >= until => {
                let why = format!("another replica has held the lock of the registrations for {limit:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(fs::TryLockError::WouldBlock) => std::thread::park_timeout(LOOK_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn id(account: &str) -> WorkloadId {
        WorkloadId::new(&TrustDomain::parse("cluster.local").unwrap(), "vm", account).unwrap()
    }

    fn joined(home: &Path) -> Arc<Joined> {
        Arc::new(Joined::new(&StateFolder::new(home), TrustDomain::parse("cluster.local").unwrap()))
    }

    fn renew(joined: &Arc<Joined>, shown: &str, next: &str) -> Result<(), AttestError> {
        joined.find(&id("till"), shown)?.settle((next, 2000))
    }

    #[test]
    fn a_chain_of_certificates_renews_and_lost_answers_break_nothing() {
        let home = tempfile::tempdir().unwrap();
        let first = joined(home.path());
        first.register(TOKEN, &id("till"), ("00a1", 1000), 1).unwrap();
        renew(&first, "a1", "b1").unwrap();
        renew(&first, "a1", "b2").unwrap();
        renew(&first, "b2", "c1").unwrap();
        // Another control plane on the same folder, or the same one after a restart.
        renew(&joined(home.path()), "00c1", "d1").unwrap();
        for (shown, what) in [("a1", "an old one"), ("b1", "one that never was shown"), ("ff", "a stranger")]
        {
            assert!(renew(&joined(home.path()), shown, "e1").is_err(), "{what}");
        }
        assert!(matches!(first.find(&id("other"), "c1"), Err(AttestError::NotJoined)));
    }

    #[test]
    fn t3_of_two_who_hold_one_registration_one_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let joined = joined(home.path());
        joined.register(TOKEN, &id("till"), ("a1", 1000), 1).unwrap();
        renew(&joined, "a1", "b1").unwrap();
        renew(&joined, "a1", "stolen").unwrap();
        renew(&joined, "b1", "c1").unwrap();
        assert!(matches!(renew(&joined, "stolen", "e1"), Err(AttestError::NotJoined)));
        assert!(matches!(renew(&joined, "a1", "e1"), Err(AttestError::NotJoined)));
    }

    #[test]
    fn t4_whoever_was_revoked_renews_no_more() {
        let home = tempfile::tempdir().unwrap();
        let joined = joined(home.path());
        joined.register(TOKEN, &id("till"), ("a1", 1000), 1).unwrap();
        let found = joined.find(&id("till"), "a1").unwrap();
        revoke(&StateFolder::new(home.path()).joined().join(TOKEN)).unwrap();
        assert!(matches!(found.settle(("b1", 2000)), Err(AttestError::Revoked)), "even one on its way");
        assert!(matches!(joined.find(&id("till"), "a1"), Err(AttestError::Revoked)));
    }

    #[test]
    fn a_replica_that_stops_while_it_holds_the_lock_does_not_stop_the_others_for_long() {
        let home = tempfile::tempdir().unwrap();
        let (stopped, other) = (joined(home.path()), joined(home.path()));
        stopped.register(TOKEN, &id("till"), ("a1", 1000), 1).unwrap();
        let held = stopped.alone().unwrap();

        let lock = fs::File::open(StateFolder::new(home.path()).joined().join(LOCK)).unwrap();
        let refused = held_within(&lock, Duration::ZERO).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);

        drop(held);
        renew(&other, "a1", "b1").unwrap();
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let joined = joined(home.path());
        joined.register(TOKEN, &id("till"), ("a1", 1000), 1).unwrap();
        joined.sweep(2000);
        assert_eq!(list(&StateFolder::new(home.path()).joined()).len(), 1);
        joined.sweep(1001 + 24 * 3600);
        assert!(list(&StateFolder::new(home.path()).joined()).is_empty());
        assert!(joined.find(&id("till"), "a1").is_err());
    }
}
