//! The last step before a container's program: gives up what an application must not have, then becomes the program.
//!
//! In the unprivileged lab everybody is uid 0 of the lab's user namespace, so capabilities are what separates an
//! application from its sidecar: with CAP_NET_RAW alone it could mark its sockets and walk past the rules. Sets that
//! are empty and bounded, with no_new_privs, cannot be refilled. As root the uid changes as well, as in a cluster.

use std::{
    ffi::OsString, io, os::unix::process::CommandExt, path::PathBuf, process::Command, process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::lab::roles;

/// How much a program keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(no_binary_name = true)]
pub struct Confinement {
    /// Become this uid.
    #[arg(long)]
    pub uid: Option<u32>,
    /// Become this gid.
    #[arg(long)]
    pub gid: Option<u32>,
    /// Keep CAP_NET_ADMIN: a sidecar of the unprivileged lab marks its sockets, and installs its rules.
    #[arg(long)]
    pub net_admin: bool,
    /// Folders that the program finds empty: what is its sidecar's alone.
    #[arg(long)]
    pub hide: Vec<PathBuf>,
    /// Where the program starts.
    #[arg(long, default_value = "/")]
    pub directory: PathBuf,
}

impl Confinement {
    /// The arguments that make the lab's own program confine itself so and become `command`.
    #[must_use]
    pub fn arguments(&self, command: &[OsString]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![roles::CONFINE.into()];
        for (flag, id) in [("--uid", self.uid), ("--gid", self.gid)] {
            if let Some(id) = id {
                arguments.extend([flag.into(), id.to_string().into()]);
            }
        }
        if self.net_admin {
            arguments.push("--net-admin".into());
        }
        for folder in &self.hide {
            arguments.extend(["--hide".into(), folder.into()]);
        }
        arguments.extend(["--directory".into(), self.directory.clone().into(), "--".into()]);
        arguments.extend_from_slice(command);
        arguments
    }
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Arguments {
    #[command(flatten)]
    confinement: Confinement,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program; returns only if that fails.
///
/// # Errors
/// As the kernel says.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    let Arguments { confinement, command } = Arguments::try_parse_from(arguments)?;
    let (program, rest) = command.split_first().context("a command is required")?;
    hide(&confinement.hide).context("hide the sidecar's own folders")?;
    std::env::set_current_dir(&confinement.directory)
        .with_context(|| format!("working directory {}", confinement.directory.display()))?;
    give_up(&confinement).context("give up privileges")?;
    let error = Command::new(program).args(rest).exec();
    eprintln!("lab: {}: {error}", program.to_string_lossy());
    // As a shell says it.
    Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}

/// In a mount namespace of the program's own. Without capabilities it cannot undo it; nor can it look through another
/// container's eyes, which are covered too.
fn hide(folders: &[PathBuf]) -> io::Result<()> {
    const NONE: Option<&str> = None;
    if folders.is_empty() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    for folder in folders {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
        mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("size=4k,mode=755"))?;
    }
    Ok(())
}

fn give_up(confinement: &Confinement) -> io::Result<()> {
    let kept = if confinement.net_admin { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    clear_ambient_capability_set()?;
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        // An unknown number is one that this kernel does not have.
        if !kept.contains(capability) && capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    if let Some(gid) = confinement.gid {
        setgroups(&[])?;
        setgid(Gid::from_raw(gid))?;
    }
    if let Some(uid) = confinement.uid {
        setuid(Uid::from_raw(uid))?;
    } else {
        set_capabilities(
            None,
            CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
        )?;
    }
    set_no_new_privs(true)?;
    Ok(())
}
