//! Is there such a program on this machine? Asked before anything starts.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::lab::{mounts::PROGRAMS_DIR, roles::PROGRAMS};

/// Can a pod run `program`: a path, one of ours, or a name in the PATH of this machine?
#[must_use]
pub fn exists(program: &str) -> bool {
    if program.contains('/') {
        return is_program(Path::new(program));
    }
    PROGRAMS.contains(&program) || search_path().any(|folder| is_program(&folder.join(program)))
}

/// The PATH of a pod: ours first, then this machine's.
#[must_use]
pub fn pod_path() -> String {
    let own: Vec<_> = search_path().map(|it| it.to_string_lossy().into_owned()).collect();
    format!("{PROGRAMS_DIR}:{}", own.join(":"))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsStr::new(DEFAULT_PATH).to_owned());
    // An empty entry would mean the working directory.
    std::env::split_paths(&path).filter(|it| it.is_absolute()).collect::<Vec<_>>().into_iter()
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}
