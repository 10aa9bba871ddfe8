//! A real mesh in real network namespaces: the lab's program is started on a folder of YAML and looked at from outside.

mod life;
mod refusals;
mod yaml;

use douane_tests::{lab::Lab, namespaces};

const LAB: &str = env!("CARGO_BIN_EXE_lab-under-test");

/// A lab that is ready; `None` where this kernel has no namespaces for us (said aloud, forbidden in CI).
fn lab(files: &[(&str, &str)]) -> Option<Lab> {
    namespaces::are_available().then(|| Lab::up(LAB, files))
}

/// A lab that was only started.
fn started(files: &[(&str, &str)]) -> Option<Lab> {
    namespaces::are_available().then(|| Lab::start(LAB, files))
}
