//! What is bound: redirected connections on loopback (the pod's own) and on every address (its peers'), the health
//! port, the admin socket, and the applications' workload socket. Where the kernel knows no IPv6, IPv4 alone is served.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::{
    admin::socket,
    config::Config,
    net::socket::{BACKLOG, Sockets},
    workload,
};

/// Bound sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    /// One for each address family.
    pub(super) outbound: Vec<TcpListener>,
    /// For both families. Bound only: until there is a law to judge them by, peers shall be refused at once and try
    /// another endpoint, not wait for a handshake.
    pub(super) inbound: TcpSocket,
    /// For both families.
    pub(super) health: TcpListener,
    pub(super) admin: UnixListener,
    /// For applications.
    pub(super) workload: Option<UnixListener>,
}

/// Where a sidecar listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Redirected connections of the pod.
    pub outbound: Vec<SocketAddr>,
    /// Redirected connections to the pod.
    pub inbound: SocketAddr,
    /// Health and metrics.
    pub health: SocketAddr,
}

impl Listeners {
    pub(super) fn bind(config: &Config, sockets: Sockets) -> anyhow::Result<Self> {
        let run_dir = &config.run_dir;
        let admin = socket::bind(run_dir).with_context(|| {
            format!("open the admin socket in {} (choose another place by --run-dir)", run_dir.display())
        })?;
        Ok(Self {
            outbound: loopback(sockets, config.ports.outbound)?,
            inbound: wildcard(sockets, config.ports.inbound)?,
            health: wildcard(sockets, config.ports.health)?.listen(BACKLOG).context("listen for probes")?,
            admin,
            workload: config.workload.socket.as_deref().map(open_workload).transpose()?,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            outbound: self.outbound.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?,
            inbound: self.inbound.local_addr()?,
            health: self.health.local_addr()?,
        })
    }
}

fn open_workload(path: &Path) -> anyhow::Result<UnixListener> {
    workload::socket::bind(path).with_context(|| {
        format!(
            "open the workload socket {} (choose another place by --workload-socket, or off)",
            path.display()
        )
    })
}

fn loopback(sockets: Sockets, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let v4 = listen(sockets, Ipv4Addr::LOCALHOST.into(), port)?;
    match sockets.listen((Ipv6Addr::LOCALHOST, port).into()) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(error) if is_without_ipv6(&error) => Ok(vec![v4]),
        Err(error) => Err(error).with_context(|| format!("listen on [::1]:{port}")),
    }
}

fn wildcard(sockets: Sockets, port: u16) -> anyhow::Result<TcpSocket> {
    match sockets.bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if is_without_ipv6(&error) => {
            sockets.bind((Ipv4Addr::UNSPECIFIED, port).into()).with_context(|| format!("bind 0.0.0.0:{port}"))
        }
        bound => bound.with_context(|| format!("bind [::]:{port}")),
    }
}

fn listen(sockets: Sockets, address: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    sockets.listen((address, port).into()).with_context(|| format!("listen on {address}:{port}"))
}

fn is_without_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT: no IPv6 in the kernel; EADDRNOTAVAIL: disabled on this machine.
    let without = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    without.map(|errno| Some(errno.raw_os_error())).contains(&error.raw_os_error())
}
