//! The folder where a running lab keeps its files, one for each lab, found again by `lab exec` and `lab status`.
//!
//! `$XDG_RUNTIME_DIR` (or `/tmp`) `/douane-lab-<uid>/<launcher pid>/`, readable by nobody else. A lock that the launcher
//! holds tells a live lab from a dead one, whose folder the next lab removes.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use rustix::process::geteuid;

use crate::lab::processes::say;

/// Labs that one user can run at once: each holds a full set of namespaces and processes.
const MOST_LABS: usize = 16;

/// A live lab's folder, held by its launcher.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _alive: Flock<File>,
}

impl StateDir {
    /// Makes this process's folder; removes those of dead labs.
    ///
    /// # Errors
    /// The place is not ours, or too many labs run.
    pub fn create() -> Result<Self> {
        let base = base()?;
        let _turn =
            lock(&base.join("lock"), FlockArg::LockExclusive).context("wait for another lab to start")?;
        let live = sweep(&base)?;
        if live.len() >= MOST_LABS {
            bail!("{MOST_LABS} labs are running already; end one (their folders: {})", base.display());
        }
        let path = base.join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&path);
        private_dir(&path)?;
        let alive =
            lock(&path.join(ALIVE), FlockArg::LockExclusiveNonblock).context("lock the new lab's folder")?;
        Ok(Self { path, _alive: alive })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The live lab that is meant: the one with this id (its launcher's pid), or the newest.
///
/// # Errors
/// None runs, or not that one.
pub fn find(id: Option<u32>) -> Result<(u32, PathBuf)> {
    let base = base()?;
    let mut live = sweep(&base)?;
    // The newest first.
    live.sort_by_key(|(_, path)| std::cmp::Reverse(fs::metadata(path).and_then(|it| it.modified()).ok()));
    match id {
        None => {
            let others: Vec<_> = live.iter().skip(1).map(|(id, _)| id.to_string()).collect();
            let newest = live.into_iter().next().context("no lab is running; start one:  lab up DIR")?;
            if !others.is_empty() {
                let id = newest.0;
                say(&format!("this is lab {id}, the newest; others run, for --lab: {}", others.join(", ")));
            }
            Ok(newest)
        }
        Some(id) => {
            let ids: Vec<_> = live.iter().map(|(id, _)| id.to_string()).collect();
            let found = live.into_iter().find(|(it, _)| *it == id);
            found.with_context(|| format!("no lab {id} is running; running: [{}]", ids.join(", ")))
        }
    }
}

/// Makes a folder that only we can enter.
///
/// # Errors
/// As the file system says.
pub fn private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).with_context(|| format!("make {}", path.display()))
}

/// Writes a file so that readers see the old or the new one, never a half.
///
/// # Errors
/// As the file system says.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A leading dot: watchers of the folder pass over it.
    let draft = path.with_file_name(format!(".{name}.draft"));
    let written = fs::write(&draft, content)
        .and_then(|()| fs::set_permissions(&draft, Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&draft, path));
    written.with_context(|| format!("write {}", path.display()))
}

const ALIVE: &str = "alive";

fn base() -> Result<PathBuf> {
    let uid = geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // `sudo -E` keeps the caller's variable: a folder of another user is not ours to use.
    let ours = runtime.filter(|it| fs::metadata(it).is_ok_and(|it| it.is_dir() && it.uid() == uid));
    let base = ours.unwrap_or_else(|| "/tmp".into()).join(format!("douane-lab-{uid}"));
    match DirBuilder::new().mode(0o700).create(&base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make {}", base.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(&base)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        bail!("{} is not a private folder of this user; remove it", base.display());
    }
    Ok(base)
}

/// Removes the folders of dead labs; returns the live ones.
fn sweep(base: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let mut live = Vec::new();
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let Some(id) = path.file_name().and_then(|it| it.to_str()).and_then(|it| it.parse().ok()) else {
            continue;
        };
        match lock(&path.join(ALIVE), FlockArg::LockSharedNonblock) {
            Ok(_) => {
                let _ = fs::remove_dir_all(&path);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => live.push((id, path)),
            // Being made or removed right now by its owner, or not ours to judge.
            Err(_) => {}
        }
    }
    Ok(live)
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}
