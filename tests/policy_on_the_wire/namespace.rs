//! A network namespace in which every address is local, so that cases may name whom they like.
//!
//! Made inside an unprivileged user namespace, or directly as root.

use std::{
    env, fs,
    net::{Ipv4Addr, Ipv6Addr},
    process::{Command, ExitCode},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use rtnetlink::{
    LinkUnspec, RouteMessageBuilder,
    packet_route::route::{RouteScope, RouteType},
};

/// Set by CI: where namespaces are forbidden, the test fails instead of being skipped.
const REQUIRED: &str = "DOUANE_REQUIRE_NAMESPACES";
const INSIDE: &str = "DOUANE_TEST_INSIDE";
/// The exit code of the second process where the kernel forbids namespaces.
const FORBIDDEN: i32 = 77;
/// The kernel's table of local addresses.
const LOCAL_TABLE: u32 = 255;

/// Where this process is.
pub(crate) enum Place {
    /// In the namespace.
    Inside,
    /// Outside; the second process has done everything.
    Ended(ExitCode),
}

/// Runs this binary again inside a namespace; the second process enters it before it starts any thread.
pub(crate) fn enter_or_run_inside() -> Place {
    if env::var_os(INSIDE).is_some() {
        enter();
        return Place::Inside;
    }
    let binary = env::current_exe().expect("a running test has a file");
    let status = Command::new(binary).args(env::args_os().skip(1)).env(INSIDE, "1").status();
    Place::Ended(match status.expect("the binary runs again").code() {
        Some(0) => ExitCode::SUCCESS,
        Some(FORBIDDEN) if env::var_os(REQUIRED).is_none() => {
            println!("SKIPPED: the kernel forbids namespaces");
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    })
}

fn enter() {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        allowed("network namespace", unshare(CloneFlags::CLONE_NEWNET));
    } else {
        allowed("user namespace", unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET));
        allowed("setgroups", fs::write("/proc/self/setgroups", "deny"));
        allowed("uid map", fs::write("/proc/self/uid_map", format!("0 {uid} 1")));
        allowed("gid map", fs::write("/proc/self/gid_map", format!("0 {gid} 1")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (connection, links, _) = rtnetlink::new_connection().expect("a netlink socket");
        tokio::spawn(connection);
        links.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await.expect("lo is up");
        let lo = if_nametoindex("lo").expect("lo is there");
        // A route of type "local" makes what it covers an address of this host.
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .output_interface(lo)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(LOCAL_TABLE);
        links.route().add(v4.build()).execute().await.expect("every IPv4 address is local");
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
            .output_interface(lo)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(LOCAL_TABLE);
        links.route().add(v6.build()).execute().await.expect("every IPv6 address is local");
    });
}

fn allowed<E: std::fmt::Display>(step: &str, done: Result<(), E>) {
    if let Err(error) = done {
        eprintln!("cannot make a {step}: {error}");
        std::process::exit(FORBIDDEN);
    }
}
