//! The state folder: what lies where in it, and files that survive a power cut.
//!
//! A file is written beside, synced, renamed, and the folder synced: a reader sees the old bytes or the new ones, never
//! half of them. Knows not what the files mean (`authority/keep`, `attest/join`, `discovery/kept`).

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// The one before us may be on its way out; and a process that its owner has just forked holds the lock until it runs
/// its own program.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// See [`LOCK_PATIENCE`].
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The state folder of one control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFolder(PathBuf);

/// Held while a control plane runs on a folder.
#[derive(Debug)]
pub struct StateLock {
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

impl StateFolder {
    /// The folder at `path`; nothing is looked at or made yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The authority: its roots with their keys, and where each stands, 0600.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.0.join("authority")
    }

    /// What each running control plane on the folder says of itself.
    #[must_use]
    pub fn replicas(&self) -> PathBuf {
        self.0.join("replicas")
    }

    /// Where an operator's commands reach the running control plane.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// Of older versions: the one root with its key, PEM. It is taken over into [`Self::authority`].
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.0.join("root.pem")
    }

    /// The roots that sidecars trust on first contact, PEM.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.0.join("bundle.pem")
    }

    /// Hashes of join tokens that are not spent yet.
    #[must_use]
    pub fn join_tokens(&self) -> PathBuf {
        self.0.join("join-tokens")
    }

    /// Who came by a join token, and renews by certificate.
    #[must_use]
    pub fn joined(&self) -> PathBuf {
        self.0.join("joined")
    }

    /// The last good resource files.
    #[must_use]
    pub fn last_good(&self) -> PathBuf {
        self.0.join("last-good")
    }

    /// The key sets of token issuers that were fetched last.
    #[must_use]
    pub fn key_sets(&self) -> PathBuf {
        self.0.join("key-sets")
    }

    /// The bundles of other trust domains that were fetched last.
    #[must_use]
    pub fn federation(&self) -> PathBuf {
        self.0.join("federation")
    }

    /// The audit log, unless it is configured to lie elsewhere.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.0.join("audit")
    }

    /// Makes the folder where there is none, closes it to others (0700), and takes its lock.
    ///
    /// # Errors
    /// When another control plane holds it, or others use it for their files.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        self.refuse_shared()?;
        private_folder(&self.0).map_err(self.failed("make"))?;
        let path = self.0.join("lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed("open", &path))?;
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(StateLock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(StateError::Locked(self.0.clone())),
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            }
        }
    }

    // Our own folder may be closed again; one that holds other people's files is left as it is.
    fn refuse_shared(&self) -> Result<(), StateError> {
        let metadata = match fs::metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(self.failed("look at"))?,
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 == 0 || self.root().exists() || self.authority().exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(&self.0).map_err(self.failed("list"))?;
        if entries.next().is_none() {
            return Ok(());
        }
        Err(StateError::Shared { path: self.0.clone(), mode })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StateError + use<> {
        failed(action, &self.0)
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
