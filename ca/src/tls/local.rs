//! A socket for processes of this machine: no TLS, since the kernel says who is there and nobody is in between. Becomes a
//! [`Connection`] as those of the network do.
//!
//! Knows not what a user may have (`attest`).

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    time,
};
use tokio_util::sync::CancellationToken;

use super::listen::{Connection, Gate};
use crate::peer::{Origin, Peer};

/// Processes of one machine.
const MAX_CONNECTIONS: usize = 256;
/// Out of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Everybody may connect; who gets what, the kernel's word on the user decides.
const MODE: u32 = 0o666;

/// Binds the socket at `path`, in the place of one that nobody listens on any more.
///
/// # Errors
/// When something else is there, or somebody listens.
pub fn bind_local(path: &Path) -> io::Result<UnixListener> {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

/// Accepts processes until `stop`.
pub async fn listen_local(
    listener: UnixListener,
    gate: Gate,
    secured: mpsc::Sender<Connection>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        match peer_of(&stream) {
            Ok(peer) => {
                // Fails only when the server has ended.
                let _ = secured.send(Connection::local(stream, peer, gate.strangers.bounds(), place)).await;
            }
            Err(error) => tracing::warn!(%error, "the kernel does not say who has connected"),
        }
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let who = stream.peer_cred()?;
    let from = Origin::Process { uid: who.uid(), pid: who.pid() };
    Ok(Peer { from, id: None, certificate: None })
}
