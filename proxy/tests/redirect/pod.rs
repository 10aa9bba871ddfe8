//! A pod without Kubernetes: a network namespace with an address of each family, a default route, and one neighbour in
//! a namespace of its own. Made inside an unprivileged user namespace, or directly where the test runs as root.
//!
//! A user namespace can only be entered by a process with one thread, which a test harness is not. So this binary is
//! its own harness: it runs itself again for each test, and that process enters the namespaces before it does
//! anything else.

use std::{
    env, fs,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    process::Command,
    sync::mpsc,
    thread,
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::address::{AddressAttribute, AddressFlags},
};

/// The pod's addresses.
pub(crate) const POD: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 12)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x12))];
/// Its neighbour's addresses, which also are its way to everywhere.
pub(crate) const NEIGHBOUR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1))];
/// Set by CI: where namespaces are forbidden, tests fail instead of being skipped.
const REQUIRED: &str = "DOUANE_REQUIRE_NAMESPACES";
const INSIDE: &str = "DOUANE_TEST_INSIDE";
// Exit codes of the second process; a panic's is 101.
const FORBIDDEN: i32 = 77;
const UNSUITABLE: i32 = 78;

type Job = Box<dyn FnOnce() + Send>;

/// The pod that the current test runs in.
pub(crate) struct Pod {
    neighbour: mpsc::Sender<Job>,
    has_uids: bool,
}

/// What became of a test.
pub(crate) enum Outcome {
    Passed,
    /// The kernel forbids namespaces, or the test says itself that it cannot run here.
    Skipped(String),
    Failed(String),
}

/// The test that this process was started for, if it is the second one.
pub(crate) fn test_inside() -> Option<String> {
    env::var(INSIDE).ok()
}

/// Runs the test `name` in a process of its own.
pub(crate) fn run(name: &str) -> Outcome {
    let binary = env::current_exe().expect("a running test has a file");
    let output = Command::new(binary).env(INSIDE, name).output().expect("the binary runs again");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Outcome::Passed,
        Some(FORBIDDEN) if env::var_os(REQUIRED).is_none() => Outcome::Skipped(said),
        Some(UNSUITABLE) => Outcome::Skipped(said),
        _ => Outcome::Failed(said),
    }
}

impl Pod {
    /// Makes the pod around this process, which must not have started a thread yet.
    pub(crate) fn enter() -> Self {
        let (uid, gid) = (geteuid(), getegid());
        if uid.is_root() {
            allowed("network namespace", unshare(CloneFlags::CLONE_NEWNET));
        } else {
            allowed("user namespace", unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET));
            allowed("setgroups", fs::write("/proc/self/setgroups", "deny"));
            allowed("uid map", fs::write("/proc/self/uid_map", format!("0 {uid} 1")));
            allowed("gid map", fs::write("/proc/self/gid_map", format!("0 {gid} 1")));
        }

        let (namespace_of, neighbours_namespace) = mpsc::channel();
        let (neighbour, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a neighbour's namespace");
            let namespace = File::open("/proc/thread-self/ns/net").expect("a namespace has a file");
            namespace_of.send(namespace).expect("the pod waits");
            jobs.into_iter().for_each(|job| job());
        });
        let namespace = neighbours_namespace.recv().expect("the neighbour has a namespace");

        let pod = Self { neighbour, has_uids: uid.is_root() };
        with_links(async |links| {
            links.link().add(LinkVeth::new("eth0", "peer").build()).execute().await?;
            let moved = LinkUnspec::new_with_name("peer").setns_by_fd(namespace.as_raw_fd()).build();
            links.link().set(moved).execute().await
        });
        pod.at_neighbour(|| connect_link("peer", NEIGHBOUR, None));
        connect_link("eth0", POD, Some(NEIGHBOUR));
        pod
    }

    /// Ends a test that needs more uids than an unprivileged user namespace has.
    pub(crate) fn require_uids(&self) {
        if !self.has_uids {
            skip("only root has more than one uid");
        }
    }

    /// Runs `job` in the neighbour's namespace and returns what it found.
    pub(crate) fn at_neighbour<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (found, answer) = mpsc::channel();
        self.neighbour.send(Box::new(move || drop(found.send(job())))).expect("the neighbour lives");
        answer.recv().expect("the neighbour's job ends well")
    }
}

fn connect_link(name: &str, addresses: [IpAddr; 2], gateways: Option<[IpAddr; 2]>) {
    let index = if_nametoindex(name).expect("the link was made");
    with_links(async |links| {
        for (address, length) in addresses.into_iter().zip([16, 64]) {
            let mut added = links.address().add(index, address, length);
            // Usable at once: nobody else could have the address.
            added.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            added.execute().await?;
        }
        for up in ["lo", name] {
            links.link().set(LinkUnspec::new_with_name(up).up().build()).execute().await?;
        }
        let Some([IpAddr::V4(v4), IpAddr::V6(v6)]) = gateways else { return Ok(()) };
        links.route().add(RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build()).execute().await?;
        links.route().add(RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build()).execute().await
    });
}

fn with_links(work: impl AsyncFnOnce(Handle) -> Result<(), rtnetlink::Error>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (connection, links, _) = rtnetlink::new_connection().expect("a netlink socket");
        tokio::spawn(connection);
        work(links).await.expect("the kernel makes links");
    });
}

/// Ends a test that cannot run here.
pub(crate) fn skip(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(UNSUITABLE)
}

/// Ends this process, with the reason, where the kernel forbids namespaces.
fn allowed<E: std::fmt::Display>(step: &str, done: Result<(), E>) {
    if let Err(error) = done {
        eprintln!("cannot make a {step}: {error}");
        std::process::exit(FORBIDDEN);
    }
}
