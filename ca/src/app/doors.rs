//! The doors that are bound before anything is served: addresses for gRPC and metrics, and the operators' socket, which a
//! replica opens when it leads.
//!
//! Knows not who comes in.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{admin, authority::Authority, config::GRPC_PORT, state::StateFolder};

/// Connections that the kernel holds until we take them: all sidecars of a mesh may start at once, and who finds no place
/// tries again after a second. The kernel allows as many by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Without a choice: all addresses, of both families where there are two.
pub(super) fn bind_all(wanted: &[SocketAddr]) -> Result<Vec<TcpListener>> {
    if wanted.is_empty() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, GRPC_PORT));
        return match listen_on(all) {
            Ok(listener) => Ok(vec![listener]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(error).context(format!("listen on {all}"))
            }
            Err(_) => Ok(vec![bind((Ipv4Addr::UNSPECIFIED, GRPC_PORT).into())?]),
        };
    }
    wanted.iter().map(|address| bind(*address)).collect()
}

/// One address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener> {
    listen_on(address).with_context(|| format!("listen on {address}"))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The connections of the one before us may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The operators' socket, which is the leader's. A path that is too long for a socket, say, must not keep sidecars from their certificates.
pub(super) fn bind_admin(folder: &StateFolder, authority: &Authority) -> Option<UnixListener> {
    if !authority.leads() {
        return None;
    }
    admin::bind(folder)
        .inspect_err(|error| {
            tracing::error!(%error, "there is no admin socket: douane ca status, rotate and taint do not work");
        })
        .ok()
}

/// Obeys operators, from now on or when we lead.
pub(super) fn administer(
    bound: Option<UnixListener>,
    (folder, desk): (StateFolder, admin::Desk),
    tasks: &TaskTracker,
    halt: &CancellationToken,
) {
    match bound {
        Some(listener) => drop(tasks.spawn(admin::run(listener, desk, halt.clone()))),
        None if !desk.authority.leads() => {
            drop(tasks.spawn(administer_when_leading(folder, desk, halt.clone())));
        }
        None => {}
    }
}

async fn administer_when_leading(folder: StateFolder, desk: admin::Desk, halt: CancellationToken) {
    let bound = tokio::select! {
        () = halt.cancelled() => return,
        bound = admin::bind_when_leading(&folder, &desk.authority) => bound,
    };
    match bound {
        Ok(listener) => admin::run(listener, desk, halt).await,
        Err(error) => {
            tracing::error!(%error, "there is no admin socket: douane ca status, rotate and taint do not work");
        }
    }
}
