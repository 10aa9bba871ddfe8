//! The names of the roles that the `lab` program plays by executing itself again: a name in `argv[0]`, or a hidden first
//! argument. Who plays them: [`play`](crate::lab::play).

use std::{ffi::OsString, path::Path};

/// First argument of process 1 of a lab.
pub const INIT: &str = "role-init";
/// First argument of the daemon.
pub const DAEMON: &str = "role-daemon";
/// First argument of the step that gives up privileges before a container's program.
pub const CONFINE: &str = "role-confine";
/// First argument of the way out to a collector.
pub const RELAY: &str = "role-relay";

/// First argument before the name of a program to play, where `argv[0]` cannot carry it.
pub const PLAY: &str = "role-play";

/// The program that `argv[0]` names, where it is one that this binary plays.
#[must_use]
pub fn program(arguments: &[OsString]) -> Option<&'static str> {
    let name = Path::new(arguments.first()?).file_name()?;
    PROGRAMS.into_iter().find(|it| name == *it)
}

/// The programs that this binary plays by name.
pub const PROGRAMS: [&str; 3] = ["douane", "douane-proxy", "shop"];
