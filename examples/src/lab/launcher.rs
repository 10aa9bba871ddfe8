//! The launcher: enters the lab's namespaces and starts process 1 in them; passes signals on, waits, tidies up.
//!
//! Single-threaded from start to end, since the kernel lets only such a process make a user namespace. Its life is the
//! lab's: process 1 reads a pipe that the launcher alone holds open, so that even `kill -9` ends the lab.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};
use rustix::process::{getegid, geteuid};

use crate::lab::{
    refused::NamespacesRefused,
    relay, roles,
    spec::{Job, Options, Spec, VARIABLE},
    state::StateDir,
};

/// Runs a lab until its job ends; returns the job's exit code.
///
/// # Errors
/// The kernel refuses the namespaces, or the folder for its files cannot be made.
pub fn run(job: Job, mut options: Options, otlp: Option<&str>) -> Result<ExitCode> {
    let state = StateDir::create()?;
    // The lab's own network has no way out, so what leads out starts before we enter it.
    let mut relay = match otlp {
        Some(collector) => {
            let (process, socket) = relay::start(collector, state.path())?;
            options.relay = Some(socket);
            Some(process)
        }
        None => None,
    };
    let signals = watched_signals();
    signals.thread_block().context("hold signals back")?;
    enter_namespaces()?;
    let spec = Spec { state: state.path().to_owned(), job, options };
    let init = start_init(&spec)?;
    let status = wait(init, signals)?;
    if let Some(relay) = &mut relay {
        let _ = relay.kill();
        let _ = relay.wait();
    }
    Ok(exit_code(status))
}

fn enter_namespaces() -> Result<(), NamespacesRefused> {
    let (uid, gid) = (geteuid(), getegid());
    let mut kinds = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if uid.is_root() {
        return unshare(kinds).map_err(NamespacesRefused::at("unshare"));
    }
    kinds |= CloneFlags::CLONE_NEWUSER;
    unshare(kinds).map_err(NamespacesRefused::at("unshare"))?;
    // The kernel demands this before an unprivileged gid map.
    fs::write("/proc/self/setgroups", "deny").map_err(NamespacesRefused::at("write /proc/self/setgroups"))?;
    // To 0, since a process that is not 0 in there loses its capabilities when it executes a program.
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))
        .map_err(NamespacesRefused::at("write /proc/self/uid_map"))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
        .map_err(NamespacesRefused::at("write /proc/self/gid_map"))
}

fn start_init(spec: &Spec) -> Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("lab-init")
        .arg(roles::INIT)
        .env(VARIABLE, spec.to_text()?)
        // The pipe whose end tells that the launcher is gone.
        .stdin(Stdio::piped())
        // A terminal's Ctrl-C must reach the launcher alone: sidecars outlive their applications.
        .process_group(0)
        .spawn()
        .map_err(|cause| NamespacesRefused { step: "start process 1", cause }.into())
}

fn wait(mut init: Child, signals: SigSet) -> Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(init.id()).context("a pid fits")?);
    let mut asked: Option<Instant> = None;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(status) = init.try_wait()? {
                    return Ok(status);
                }
            }
            // Somebody who asks again after a while wants it now; some programs send one wish twice.
            _ if asked.is_some_and(|it| it.elapsed() > INSIST) => init.kill()?,
            _ => {
                asked.get_or_insert_with(Instant::now);
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
    }
}

const INSIST: Duration = Duration::from_millis(500);

fn watched_signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => {
            eprintln!("lab: ended by {status}; nothing of it is left");
            ExitCode::FAILURE
        }
    }
}
