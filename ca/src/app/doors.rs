//! The doors that are bound before anything is served: addresses for gRPC and metrics, and the operators' socket, which one
//! of several replicas on a folder opens when it leads; and what is said at the door to who asks whether we are ready.
//!
//! Knows not who comes in.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{admin, authority::Authority, config::GRPC_PORT, metrics, state::StateFolder};

/// Connections that the kernel holds until we take them: all sidecars of a mesh may start at once, and who finds no place
/// tries again after a second. The kernel allows as many by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Said on `/readyz`.
const MAY_NOT_SIGN: &str = "the authority's state could not be read, or written of, for some seconds: nothing is signed until \
                            it can be; see the log";

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

/// The operators' socket: the leader's on a folder that replicas share, each replica's own in a cluster, where it has a folder
/// of its own. A path that is too long for a socket, say, must not keep sidecars from their certificates.
pub(super) fn bind_admin(folder: &StateFolder, authority: &Authority) -> Option<UnixListener> {
    if !authority.leads() && folder.shelf().is_none() {
        return None;
    }
    admin::bind(folder)
        .inspect_err(|error| {
            tracing::error!(%error, "there is no admin socket: douane ca status, rotate and taint do not work");
        })
        .ok()
}

/// What is said of how we are. Who may sign nothing for now has nothing for a sidecar that comes to it; a failure that is shorter
/// than what it may sign by is no failure.
pub(super) fn status(
    known: impl Fn() -> metrics::Status + Clone + Send + 'static,
    authority: &Arc<Authority>,
) -> impl Fn() -> metrics::Status + Clone + Send + 'static {
    let authority = Arc::clone(authority);
    move || {
        let known = known();
        let not_ready = known.not_ready.or((!authority.may_sign()).then_some(MAY_NOT_SIGN));
        metrics::Status { not_ready, ..known }
    }
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
