//! `lab exec`: runs a program of this machine inside a pod of a running lab, as the pod's application would run.
//!
//! No daemon is asked: the kernel lets a process of the same user enter the lab's namespaces. The order is user, process,
//! network, mounts, host name; then a child is started, since only children are born into a process namespace.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::{CommandExt as _, ExitStatusExt},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::lab::{
    control_plane::STATE as CONTROL_PLANE_STATE,
    mounts::LAB_PROGRAM,
    record::{self, Record},
    sidecar::clean_environment,
    state,
};

/// Runs `command` in a pod; returns its exit code.
///
/// # Errors
/// No such lab, pod or container, or it belongs to somebody else.
pub fn main(lab: Option<u32>, pod: &str, container: Option<&str>, command: &[OsString]) -> Result<ExitCode> {
    let (id, folder) = state::find(lab)?;
    let lab = record::read(&folder)?;
    let names: Vec<_> = lab.pods.iter().map(record::PodRecord::names).collect();
    let pod = lab.pods.get(record::choose(pod, &names)?).context("a pod was chosen")?;
    let container = match container {
        None => pod.containers.first(),
        Some(name) => pod.containers.iter().find(|it| it.name == name),
    };
    let Some(container) = container else {
        let known: Vec<_> = pod.containers.iter().map(|it| it.name.as_str()).collect();
        bail!("{}/{} has no such container; it has: {}", pod.namespace, pod.pod, known.join(", "));
    };
    let daemon = daemon(id, &lab)?;
    let thread = thread(daemon, pod.thread)?;
    enter(daemon, &format!("/proc/{daemon}/task/{thread}/ns"), &["net", "mnt", "uts", "ipc"])?;

    let mut process = Command::new(LAB_PROGRAM);
    process.args(&container.confinement).args(command);
    clean_environment(&mut process, &container.env);
    // What a terminal needs to work.
    process.envs(["TERM", "LANG"].iter().filter_map(|it| Some((it, std::env::var_os(it)?))));
    let status = process.status().context("start the program in the pod")?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Runs `douane` as an operator of a running lab's control plane would, in place of this process.
///
/// # Errors
/// No such lab, or the program cannot be started.
pub fn douane(lab: Option<u32>, arguments: &[OsString]) -> Result<ExitCode> {
    let (_, folder) = state::find(lab)?;
    // This binary, in the role of its name.
    let program = std::env::current_exe().context("find this program")?;
    let mut douane = Command::new(program);
    douane.arg0("douane").args(arguments).env("DOUANE_DIR", folder.join(CONTROL_PLANE_STATE));
    Err(douane.exec()).context("start douane")
}

/// Moves the calling process into the network of the lab's bridge.
///
/// # Errors
/// The lab is gone, or belongs to somebody else.
pub fn enter_bridge(lab: u32, record: &Record) -> Result<()> {
    let daemon = daemon(lab, record)?;
    enter(daemon, &format!("/proc/{daemon}/ns"), &["net"])
}

fn enter(daemon: u32, namespaces: &str, kinds: &[&str]) -> Result<()> {
    let mut files = Vec::new();
    // As root there is no user namespace of the lab's own, and entering one's own is refused.
    let own = fs::read_link("/proc/self/ns/user")?;
    let theirs = format!("/proc/{daemon}/ns/user");
    if fs::read_link(&theirs).context("look at the lab's daemon")? != own {
        files.push(File::open(theirs).context("enter the lab's user namespace")?);
    }
    if kinds.contains(&"mnt") {
        files.push(File::open(format!("/proc/{daemon}/ns/pid"))?);
    }
    // All are opened before the first is entered: the paths mean something else afterwards.
    for kind in kinds {
        files.push(
            File::open(format!("{namespaces}/{kind}"))
                .with_context(|| format!("open the {kind} namespace"))?,
        );
    }
    for file in files {
        setns(file, CloneFlags::empty()).context("enter the lab's namespaces")?;
    }
    Ok(())
}

/// The daemon's process number, as this process sees it: launcher, process 1, daemon.
fn daemon(lab: u32, record: &Record) -> Result<u32> {
    let processes = numbers(Path::new("/proc"))?;
    let child = |parent: u32, inner: u32| {
        processes.iter().copied().find(|it| {
            let Some(kin) = Kin::of(&format!("/proc/{it}/status")) else { return false };
            kin.parent == parent && kin.inner == inner
        })
    };
    let init = child(lab, 1).context("the lab is just ending")?;
    child(init, record.daemon).context("the lab is just ending")
}

/// A thread's number, as this process sees it.
fn thread(daemon: u32, inner: i32) -> Result<u32> {
    let folder = format!("/proc/{daemon}/task");
    let threads = numbers(Path::new(&folder))?;
    let is_it = |it: &u32| {
        let kin = Kin::of(&format!("{folder}/{it}/status"));
        kin.is_some_and(|kin| i64::from(kin.inner) == i64::from(inner))
    };
    threads.into_iter().find(is_it).context("the pod is just ending")
}

/// A process's parent, and its own number in its innermost process namespace.
struct Kin {
    parent: u32,
    inner: u32,
}

impl Kin {
    fn of(status: &str) -> Option<Self> {
        let status = fs::read_to_string(status).ok()?;
        let line = |key: &str| status.lines().find_map(|it| it.strip_prefix(key));
        let parent = line("PPid:")?.trim().parse().ok()?;
        let inner = line("NSpid:")?.split_whitespace().next_back()?.parse().ok()?;
        Some(Self { parent, inner })
    }
}

fn numbers(folder: &Path) -> Result<Vec<u32>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    Ok(entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok()).collect())
}
