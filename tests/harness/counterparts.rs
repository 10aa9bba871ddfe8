//! Foreign programs that tests use as counterparts, as `tests/counterparts.sh` brought them together. A test whose
//! counterpart is missing skips aloud.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Where they are, when not in the workspace's own target folder.
pub const FOLDER: &str = "DOUANE_COUNTERPARTS";

/// A program of Debian's; `None`, said aloud, where it is missing.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    present(folder().join("bin").join(name))
}

/// Python with the packages of `tests/foreign/requirements.txt`; `None`, said aloud, where it is missing.
#[must_use]
pub fn python() -> Option<PathBuf> {
    // The last thing that the script writes: packages that were half installed are none.
    present(folder().join("venv/pins"))?;
    Some(folder().join("venv/bin/python"))
}

/// A script of `tests/foreign`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    let beside = folder().join("foreign").join(name);
    if beside.exists() { beside } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign").join(name) }
}

fn folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/counterparts");
    env::var_os(FOLDER).map_or_else(default, PathBuf::from)
}

fn present(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is missing; tests/counterparts.sh brings it", path.display());
    None
}
