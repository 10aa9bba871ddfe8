//! A pod's room: one thread that lives in the pod's own network, mount and host name namespaces, and works there for
//! others. What it starts inherits them.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, unshare};

use crate::lab::{
    addresses::PodAddresses,
    links,
    mounts::{self, PodFiles},
    refused::NamespacesRefused,
};

/// What a room is made of.
#[derive(Debug)]
pub struct Furniture {
    /// The pod's host name.
    pub name: String,
    /// Its number in the lab: names the bridge's end of its cable.
    pub number: usize,
    /// Its addresses.
    pub addresses: PodAddresses,
    /// What it sees in place of the host's files.
    pub files: PodFiles,
    /// Who owns its /run/douane.
    pub sidecar_uid: u32,
    /// The folder of all labs' files, which it must not see.
    pub hidden: PathBuf,
}

type Work = Box<dyn FnOnce() + Send>;

/// A pod's namespaces, while this value lives.
#[derive(Debug)]
pub struct Room {
    work: Sender<Work>,
    thread: i32,
}

impl Room {
    /// Makes the namespaces, and plugs them into the bridge of the calling thread's network.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open(furniture: Furniture) -> Result<Self> {
        let bridge: OwnedFd =
            File::open("/proc/thread-self/ns/net").context("open the bridge's network")?.into();
        let port = format!("pod{}", furniture.number);
        let (work, todo) = channel::<Work>();
        let (says, hears) = channel();
        let name: String = furniture.name.chars().take(THREAD_NAME).collect();
        let room = thread::Builder::new().name(name);
        let room = room.spawn({
            let port = port.clone();
            move || live_in(&furniture, &port, &bridge, &says, &todo)
        });
        room.context("start the pod's thread")?;
        let thread = hears.recv().context("the pod's thread ended")??;
        let room = Self { work, thread };
        links::attach(&port)?;
        // Needs both ends of the cable up.
        room.run(links::add_default_routes)??;
        Ok(room)
    }

    /// The thread's number, by which others find the namespaces.
    #[must_use]
    pub fn thread(&self) -> i32 {
        self.thread
    }

    /// Does `work` in the pod.
    ///
    /// # Errors
    /// The pod is gone.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (says, hears) = channel();
        let work: Work = Box::new(move || {
            // Whoever asked may have stopped waiting.
            let _ = says.send(work());
        });
        self.work.send(work).map_err(|_| anyhow!("the pod is gone"))?;
        hears.recv().context("the pod is gone")
    }

    /// Starts a program in the pod.
    ///
    /// # Errors
    /// The pod is gone, or the program cannot be started.
    pub fn spawn(&self, mut command: Command) -> Result<io::Result<Child>> {
        self.run(move || command.spawn())
    }
}

// The kernel keeps 15 bytes of a thread's name.
const THREAD_NAME: usize = 15;

fn live_in(
    furniture: &Furniture,
    port: &str,
    bridge: &OwnedFd,
    says: &Sender<Result<i32>>,
    todo: &Receiver<Work>,
) {
    let furnished = furnish(furniture, port, bridge).with_context(|| format!("pod {}", furniture.name));
    let lives = furnished.is_ok();
    let _ = says.send(furnished.map(|()| rustix::thread::gettid().as_raw_nonzero().get()));
    // Ends with the last sender: the room itself.
    while lives && let Ok(work) = todo.recv() {
        work();
    }
}

fn furnish(furniture: &Furniture, port: &str, bridge: &OwnedFd) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(NamespacesRefused::at("make a pod's namespaces"))?;
    rustix::system::sethostname(furniture.name.as_bytes()).context("set the pod's host name")?;
    mounts::mount_pod(&furniture.files, &program, furniture.sidecar_uid, &furniture.hidden)?;
    mounts::set_sysctls();
    links::plug_in(port, bridge.as_fd(), furniture.addresses)
}
