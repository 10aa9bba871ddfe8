//! The state folder: what lies where in it, and files that survive a power cut.
//!
//! A file is written beside, synced, renamed, and the folder synced: a reader sees the old bytes or the new ones, never
//! half of them. Knows not what the files mean (`authority/keep`, `attest/join`, `discovery/kept`). What replicas share may
//! lie elsewhere: `shelf`.

mod shelf;

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

pub use shelf::{Item, PlaceLost, Shelf};

/// The one before us may be on its way out; and a process that its owner has just forked holds the lock until it runs
/// its own program.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// See [`LOCK_PATIENCE`].
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What the lock says while who holds it expects others to sign on the same folder.
const SHARED: &[u8] = b"replicas\n";
/// Replicas on one folder: three are usual.
pub(crate) const MOST_REPLICAS: u8 = 16;

/// The state folder of one control plane, or of one of several replicas.
#[derive(Debug, Clone)]
pub struct StateFolder {
    path: PathBuf,
    // None: nobody else runs on it.
    place: Option<Arc<Place>>,
    // Where it is shared with other replicas, if it is not in the folder.
    shelf: Option<Arc<dyn Shelf>>,
}

/// Held while a control plane leads on a folder: it alone changes the state.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

// What one replica has for itself, while it runs.
#[derive(Debug)]
struct Place {
    number: u8,
    _file: File,
}

/// A step of a durable write, which a power cut may come before or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing is written yet.
    Begun,
    /// The bytes lie in a file beside, perhaps only in the kernel's memory.
    Written,
    /// They lie on the disk.
    Synced,
    /// They have their name.
    Renamed,
    /// The name lies on the disk.
    Durable,
    /// Everybody in this process goes by them.
    InEffect,
}

/// What is told each step of a write with its file, and may make it fail.
type Told = dyn Fn(Moment, &Path) -> io::Result<()> + Send + Sync;

/// The disk, and who is told what happens on it.
#[derive(Clone, Default)]
pub struct Disk {
    told: Option<Arc<Told>>,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Our own user only (0600).
    Owner,
    /// Anybody who reaches the folder (0644).
    Everyone,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("{action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Another control plane runs on it.
    #[error("another control plane runs on {path}", path = .0.display())]
    Locked(PathBuf),
    /// So many replicas run on it that there is no place for one more.
    #[error("{MOST_REPLICAS} replicas run on {path}: there is no place for another", path = .0.display())]
    Crowded(PathBuf),
    /// Others can read a folder that holds files which are not ours.
    #[error(
        "{path} has mode {mode:o} and holds other files: choose an empty folder, or one of mode 700",
        path = path.display()
    )]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl StateError {
    /// Has our place among the replicas become another's, so that we must end?
    #[must_use]
    pub fn is_place_lost(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        source.get_ref().is_some_and(|inner| inner.is::<PlaceLost>())
    }
}

impl StateFolder {
    /// The folder at `path`; nothing is looked at or made yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), place: None, shelf: None }
    }

    /// The same, and what replicas share lies on `shelf`: the folder is ours alone.
    #[must_use]
    pub fn with_shelf(self, shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf: Some(shelf), ..self }
    }

    /// Where what replicas share lies, if it is not in the folder.
    #[must_use]
    pub fn shelf(&self) -> Option<&Arc<dyn Shelf>> {
        self.shelf.as_ref()
    }

    /// The same as one of several replicas sees it, with the first place that is free: of what only one may write, each
    /// place has its own. The place is held as long as this value or a clone lives.
    ///
    /// # Errors
    /// When the folder cannot be used, or all places are taken.
    pub fn among_replicas(&self) -> Result<Self, StateError> {
        self.refuse_shared()?;
        private_folder(&self.path).map_err(self.failed("make"))?;
        for number in 1..=MOST_REPLICAS {
            let path = self.place_lock(number);
            let file = open_lock(&path).map_err(failed("open", &path))?;
            match file.try_lock() {
                Ok(()) => {
                    let place = Some(Arc::new(Place { number, _file: file }));
                    return Ok(Self { path: self.path.clone(), place, shelf: None });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            }
        }
        Err(StateError::Crowded(self.path.clone()))
    }

    /// Which replica's it is; `None`: nobody else runs on the folder.
    #[must_use]
    pub fn replica(&self) -> Option<u8> {
        self.shelf.as_ref().map(|shelf| shelf.replica()).or(self.place.as_ref().map(|place| place.number))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The authority: its roots with their keys, and where each stands, 0600.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.shelf.as_ref().map_or_else(|| self.path.join("authority"), |shelf| shelf.name(Item::Authority))
    }

    /// What each running control plane on the folder says of itself.
    #[must_use]
    pub fn replicas(&self) -> PathBuf {
        self.path.join("replicas")
    }

    /// Where an operator's commands reach the running control plane.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// Of older versions: the one root with its key, PEM. It is taken over into [`Self::authority`].
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path.join("root.pem")
    }

    /// The roots that sidecars trust on first contact, PEM.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.path.join("bundle.pem")
    }

    /// Hashes of join tokens that are not spent yet.
    #[must_use]
    pub fn join_tokens(&self) -> PathBuf {
        self.path.join("join-tokens")
    }

    /// Who came by a join token, and renews by certificate.
    #[must_use]
    pub fn joined(&self) -> PathBuf {
        self.path.join("joined")
    }

    /// The last good resource files.
    #[must_use]
    pub fn last_good(&self) -> PathBuf {
        self.own("last-good")
    }

    /// The key sets of token issuers that were fetched last.
    #[must_use]
    pub fn key_sets(&self) -> PathBuf {
        self.own("key-sets")
    }

    /// The bundles of other trust domains that were fetched last.
    #[must_use]
    pub fn federation(&self) -> PathBuf {
        self.own("federation")
    }

    /// The audit log, unless it is configured to lie elsewhere.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.own("audit")
    }

    /// The audit logs of all replicas that have run on it.
    #[must_use]
    pub fn audits(&self) -> Vec<PathBuf> {
        (1..=MOST_REPLICAS).map(|number| self.of_place("audit", number)).filter(|log| log.is_dir()).collect()
    }

    /// Until when anything that the replica at a place has signed may be valid.
    pub(crate) fn horizon_of(&self, number: u8) -> PathBuf {
        self.replicas().join(format!("replica-{number}"))
    }

    /// Is it the [`Self::horizon_of`] a replica that runs beside us, or may? Nobody does beside who runs alone.
    pub(crate) fn is_of_another_replica(&self, horizon: &Path) -> bool {
        let own = self.replica();
        own.is_some()
            && (1..=MOST_REPLICAS).any(|number| Some(number) != own && self.horizon_of(number) == horizon)
    }

    /// Who holds certificates of the replica at a place, as it says itself.
    pub(crate) fn roll_of(&self, number: u8) -> PathBuf {
        self.rolls().join(format!("replica-{number}"))
    }

    /// See [`Self::roll_of`].
    pub(crate) fn rolls(&self) -> PathBuf {
        self.path.join("rolls")
    }

    fn place_lock(&self, number: u8) -> PathBuf {
        self.path.join(format!("lock-{number}"))
    }

    /// A folder elsewhere that only one may write: each replica has its own beside it.
    #[must_use]
    pub fn own_of(&self, folder: PathBuf) -> PathBuf {
        match self.place.as_ref().map(|place| place.number) {
            None | Some(1) => folder,
            Some(number) => {
                let mut name = folder.into_os_string();
                name.push(format!("-{number}"));
                name.into()
            }
        }
    }

    fn own(&self, name: &str) -> PathBuf {
        self.own_of(self.path.join(name))
    }

    // The first has the names that a control plane alone uses: whoever was alone goes on with them.
    fn of_place(&self, name: &str, number: u8) -> PathBuf {
        if number == 1 { self.path.join(name) } else { self.path.join(format!("{name}-{number}")) }
    }

    /// Makes the folder where there is none, closes it to others (0700), and takes its lock.
    ///
    /// # Errors
    /// When another control plane holds it, or others use it for their files.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        self.refuse_shared()?;
        private_folder(&self.path).map_err(self.failed("make"))?;
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.try_lock()? {
                Some(lock) => return Ok(lock),
                None if Instant::now() < patience => std::thread::sleep(LOCK_PAUSE),
                None => return Err(StateError::Locked(self.path.clone())),
            }
        }
    }

    /// The lock, where nobody holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<StateLock>, StateError> {
        let path = self.path.join("lock");
        let mut file = open_lock(&path).map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        if self.place.is_none() && self.has_replicas()? {
            return Ok(None);
        }
        let said = file.set_len(0).and_then(|()| match &self.place {
            Some(_) => file.write_all(SHARED),
            None => Ok(()),
        });
        said.map_err(failed("write", &path))?;
        Ok(Some(StateLock { _file: file }))
    }

    /// Does whoever leads here expect replicas beside it?
    pub(crate) fn is_shared(&self) -> Result<bool, StateError> {
        let path = self.path.join("lock");
        Ok(fs::read(&path).map_err(failed("read", &path))? == SHARED)
    }

    // Replicas sign by what a leader says that knows of them: who runs alone does not.
    fn has_replicas(&self) -> Result<bool, StateError> {
        for number in 1..=MOST_REPLICAS {
            let path = self.place_lock(number);
            match OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => match found.map_err(failed("open", &path))?.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(true),
                    Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
                },
            }
        }
        Ok(false)
    }

    // Our own folder may be closed again; one that holds other people's files is left as it is.
    fn refuse_shared(&self) -> Result<(), StateError> {
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(self.failed("look at"))?,
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 == 0 || self.root().exists() || self.authority().exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(&self.path).map_err(self.failed("list"))?;
        if entries.next().is_none() {
            return Ok(());
        }
        Err(StateError::Shared { path: self.path.clone(), mode })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StateError + use<> {
        failed(action, &self.path)
    }
}

/// Names the file and the action in an error of the operating system.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}

impl Disk {
    /// A disk on which `told` sees each step of each write, and may make it fail: what a full or a broken disk does.
    pub fn told(told: impl Fn(Moment, &Path) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { told: Some(Arc::new(told)) }
    }

    /// Makes `path` hold `bytes`, whole, on the disk, before it returns.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
        let beside = beside(path)?;
        self.at(Moment::Begun, path)?;
        // What a crash left behind may have another mode or owner; it is never written into.
        remove_if_there(&beside)?;
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Everyone => 0o644,
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        self.at(Moment::Written, path)?;
        file.sync_all()?;
        self.at(Moment::Synced, path)?;
        fs::rename(&beside, path)?;
        self.at(Moment::Renamed, path)?;
        sync_folder_of(path)?;
        self.at(Moment::Durable, path)
    }

    /// Tells that `moment` is reached.
    pub(crate) fn at(&self, moment: Moment, path: &Path) -> io::Result<()> {
        self.told.as_ref().map_or(Ok(()), |told| told(moment, path))
    }
}

/// Makes `path` hold `bytes`, whole, on the disk, before it returns.
pub(crate) fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    Disk::default().write(path, bytes, readers)
}

/// Removes `path` for good. Whoever really removed it is told `true`, everybody else `false`.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    let removed = remove_if_there(path)?;
    if removed {
        sync_folder_of(path)?;
    }
    Ok(removed)
}

/// Makes sure that the folder exists and that only our user can look into it (0700).
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if is_new {
        // Else a power cut could take the folder with all that was written into it.
        sync_folder_of(path)?;
    }
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Gives `paths` to whom `model` belongs: root may work in a folder whose control plane runs as somebody else.
pub(crate) fn hand_to_owner_of(model: &Path, paths: &[&Path]) -> io::Result<()> {
    let wanted = fs::metadata(model)?;
    for path in paths {
        let found = fs::metadata(path)?;
        if (found.uid(), found.gid()) != (wanted.uid(), wanted.gid()) {
            chown(path, Some(wanted.uid()), Some(wanted.gid()))?;
        }
    }
    Ok(())
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

// Hidden, so that whoever lists the folder passes it by.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("a path without a file name"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    // A bare file name has the empty path as its parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
