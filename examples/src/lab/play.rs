//! Plays the role that this process was started for.

use std::{ffi::OsString, process::ExitCode};

use nix::sys::signal::SigSet;

use crate::lab::{
    confine,
    daemon::{self, Script},
    init, relay, roles,
};

/// Plays the role that the first argument names, if it names one.
#[must_use]
pub fn role(arguments: &[OsString], script: Script) -> Option<ExitCode> {
    let role = arguments.get(1)?.to_str().filter(|it| it.starts_with("role-"))?;
    hear_signals();
    let rest = arguments.get(2..).unwrap_or_default();
    let done = match role {
        roles::INIT => init::main(),
        roles::DAEMON => daemon::main(script),
        roles::CONFINE => confine::main(rest),
        roles::RELAY => relay::main(rest),
        roles::PLAY => return Some(program(rest)),
        _ => return None,
    };
    Some(done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    }))
}

/// Plays the program that the first argument names.
#[must_use]
pub fn program(arguments: &[OsString]) -> ExitCode {
    hear_signals();
    let name = roles::program(arguments);
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
