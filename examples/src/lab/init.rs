//! Process 1 of a lab: starts the daemon, reaps orphans, and takes everything down with it when it ends.
//!
//! It ends when the daemon does, however that happens, and when the launcher is gone: then its standard input ends. The
//! kernel kills every process of a namespace whose process 1 ends, and removes the namespaces, links and rules.

use std::{
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::lab::{refused::NamespacesRefused, roles, spec::Spec};

/// Runs process 1.
///
/// # Errors
/// It is not process 1, or the kernel refuses the lab's mounts.
pub fn main() -> Result<ExitCode> {
    // What this process kills at its end is "everybody".
    ensure!(std::process::id() == 1, "this role is process 1 of a lab, not to be started by hand");
    let spec = Spec::from_environment()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().context("hold signals back")?;
    own_mounts()?;
    rustix::system::sethostname(b"lab").map_err(NamespacesRefused::at("set the host name"))?;

    let state = spec.state.clone();
    std::thread::spawn(move || end_with_launcher(&state));
    let daemon =
        Command::new("/proc/self/exe").arg0("lab-daemon").arg(roles::DAEMON).stdin(Stdio::null()).spawn();
    let daemon = daemon.context("start the daemon")?;
    let daemon = Pid::from_raw(i32::try_from(daemon.id()).context("a pid fits")?);
    let code = wait_for(daemon, signals)?;
    take_down(&spec.state);
    Ok(code)
}

/// Nothing that is mounted here shows outside, and /proc shows the lab's own processes.
fn own_mounts() -> Result<(), NamespacesRefused> {
    const NONE: Option<&str> = None;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(NamespacesRefused::at("make mounts private"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Refused inside containers that mask parts of /proc; the outer one shows the same processes under other numbers,
    // which the lab does not use.
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, NONE);
    Ok(())
}

fn end_with_launcher(state: &Path) {
    // The launcher never writes: a read returns when it is gone.
    let _ = io::stdin().read(&mut [0]);
    take_down(state);
    std::process::exit(1);
}

fn wait_for(daemon: Pid, signals: SigSet) -> Result<ExitCode> {
    loop {
        if signals.wait()? == Signal::SIGTERM {
            let _ = kill(daemon, Signal::SIGTERM);
            continue;
        }
        // One signal can stand for many children, orphans of the pods among them.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == daemon => {
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == daemon => {
                    eprintln!("lab: the daemon was ended by {signal}; everything goes down with it");
                    return Ok(ExitCode::FAILURE);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for children"),
            }
        }
    }
}

fn take_down(state: &Path) {
    // -1 from process 1: every process of this namespace but itself.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while waitpid(None, None).is_ok() {}
    let _ = fs::remove_dir_all(state);
}
