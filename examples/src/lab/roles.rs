//! The roles that the `lab` program plays by executing itself again: a name in `argv[0]`, or a hidden first argument.

use std::{ffi::OsString, path::Path, process::ExitCode};

use nix::sys::signal::SigSet;

use crate::lab::{
    confine,
    daemon::{self, Script},
    init, relay,
};

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

/// Plays the role that the first argument names, if it names one.
#[must_use]
pub fn play(arguments: &[OsString], script: Script) -> Option<ExitCode> {
    let role = arguments.get(1)?.to_str().filter(|it| it.starts_with("role-"))?;
    hear_signals();
    let rest = arguments.get(2..).unwrap_or_default();
    let done = match role {
        INIT => init::main(),
        DAEMON => daemon::main(script),
        CONFINE => confine::main(rest),
        RELAY => relay::main(rest),
        PLAY => return Some(play_program(rest)),
        _ => return None,
    };
    Some(done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    }))
}

/// Plays the program that the first argument names.
#[must_use]
pub fn play_program(arguments: &[OsString]) -> ExitCode {
    hear_signals();
    let name = program(arguments);
    let arguments = arguments.iter().cloned();
    match name {
        Some("douane") => douane_ca::cli::main(arguments),
        Some("douane-proxy") => douane_proxy::cli::main(arguments),
        Some("shop") => crate::apps::main(arguments),
        _ => ExitCode::FAILURE,
    }
}

/// Signals that the lab's own processes hold back for themselves would stay held back in what they start.
fn hear_signals() {
    // Fails for no set of ours.
    let _ = SigSet::empty().thread_set_mask();
}
