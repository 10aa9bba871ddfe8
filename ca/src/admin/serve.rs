//! The control plane's side of the socket: who may speak is asked of the kernel, what they say is bounded in length and
//! time.

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use std::time::{Instant, SystemTime};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{Answer, Command, MAX_COMMAND_BYTES, TapFilter};
use crate::{
    authority::{Authority, Force, RotateError, Status},
    discovery::Index,
    federation::Known,
    state::StateFolder,
    traffic::Traffic,
};

/// Operators at once; another waits.
const MOST_AT_ONCE: usize = 8;
/// Of these, taps that are open as long as an operator likes.
const MOST_TAPS: usize = 4;
/// From connecting to the answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Pods without a sidecar that one answer names.
const MOST_UNMESHED: usize = 1000;
/// After a failure to accept (no descriptors, say).
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("listen on {path}: {reason}", path = path.display())]
pub struct AdminError {
    path: PathBuf,
    reason: io::Error,
}

/// A replica looks so often whether it leads.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What commands act on.
#[derive(Clone)]
pub struct Desk {
    /// The authority.
    pub authority: Arc<Authority>,
    /// What sidecars count.
    pub traffic: Traffic,
    /// What the mesh is.
    pub index: watch::Receiver<Arc<Index>>,
    /// Where that is written.
    pub resources: Vec<PathBuf>,
    /// What is known of other trust domains.
    pub federated: Known,
}

/// Binds the socket (0600) in a folder whose lock we hold: one that lies there is of a process that is gone.
///
/// # Errors
/// [`AdminError`].
pub fn bind(folder: &StateFolder) -> Result<UnixListener, AdminError> {
    let path = folder.admin_socket();
    let bind = || {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The folder is closed to others (0700), so that there is no moment at which they could connect.
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|reason| AdminError { path: path.clone(), reason })
}

/// Waits until nobody else leads on the folder: the socket is the leader's.
pub async fn bind_when_leading(
    folder: &StateFolder,
    authority: &Authority,
) -> Result<UnixListener, AdminError> {
    while !authority.leads() {
        time::sleep(LOOK_EVERY).await;
    }
    bind(folder)
}

/// Answers until `stop`.
pub async fn run(listener: UnixListener, desk: Desk, stop: CancellationToken) {
    let (places, taps) = (Arc::new(Semaphore::new(MOST_AT_ONCE)), Arc::new(Semaphore::new(MOST_TAPS)));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok((stream, _)) => {
                let (desk, taps, stop) = (desk.clone(), Arc::clone(&taps), stop.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    match time::timeout(LIMIT, serve(&mut stream, &desk, &taps)).await {
                        Ok(Ok(Some((filter, _tap)))) => desk.tap(&filter, &mut stream, &stop).await,
                        Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
                        Ok(Ok(None)) | Err(_) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot be accepted from");
                time::sleep(PAUSE).await;
            }
        }
    }
}

// Answers; or finds that a tap is to be answered until its operator leaves.
async fn serve(
    stream: &mut UnixStream,
    desk: &Desk,
    taps: &Arc<Semaphore>,
) -> io::Result<Option<(TapFilter, OwnedSemaphorePermit)>> {
    let peer = stream.peer_cred()?.uid();
    let answer = if may_speak(peer, rustix::process::geteuid().as_raw()) {
        let mut line = Vec::new();
        let (read, _) = stream.split();
        BufReader::new(read.take(MAX_COMMAND_BYTES as u64)).read_until(b'\n', &mut line).await?;
        match serde_json::from_slice(&line) {
            Ok(Command::Tap(filter)) => match Arc::clone(taps).try_acquire_owned() {
                Ok(place) => {
                    tracing::info!(?filter, uid = peer, "an operator looks at live requests");
                    return Ok(Some((filter, place)));
                }
                Err(_) => Answer::Refused(format!("{MOST_TAPS} taps are open already: end one of them")),
            },
            Ok(Command::Search { id }) => desk.search(&id).await,
            Ok(command) => {
                let desk = desk.clone();
                let done = tokio::task::spawn_blocking(move || desk.obey(&command, peer));
                done.await.unwrap_or_else(|_| {
                    Answer::Refused("the command could not be done; see the log".to_owned())
                })
            }
            Err(error) => Answer::Refused(format!("the command makes no sense to this version: {error}")),
        }
    } else {
        tracing::warn!(uid = peer, "a user who may not speak to us tried to give a command");
        Answer::Refused(format!(
            "user {peer} may not give commands: run as the control plane's own user, or as root"
        ))
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await?;
    Ok(None)
}

/// Our own user and root.
fn may_speak(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

impl Desk {
    // Waits for the disk: not on the reactor.
    fn obey(&self, command: &Command, peer: u32) -> Answer {
        let now = SystemTime::now();
        if !matches!(command, Command::Status | Command::Traffic { .. } | Command::Unmeshed) {
            tracing::info!(?command, uid = peer, "an operator's command");
        }
        let done = match command {
            Command::Status => Ok(None),
            Command::Traffic { window_seconds, namespace } => {
                return self.traffic(Duration::from_secs(*window_seconds), namespace.as_deref());
            }
            Command::Unmeshed => return self.unmeshed(),
            Command::Tap(_) | Command::Search { .. } => {
                return Answer::Refused("this is answered elsewhere".to_owned());
            }
            Command::RotateRoot { force } => {
                self.authority.rotate_root(if *force { Force::Yes } else { Force::No }, now).map(Some)
            }
            Command::RotateIntermediate => self.authority.rotate_intermediate(now).map(Some),
            Command::Taint { authority } => self.authority.taint(authority, now).map(|()| None),
        };
        match done {
            Ok(authority) => match self.authority.status(now) {
                Ok(status) => {
                    let status = Status { federated: self.federated.statuses(), ..status };
                    Answer::Done { authority, status: Box::new(status) }
                }
                Err(error) => Answer::Refused(in_full(&error)),
            },
            Err(error) => Answer::Refused(in_full(&error)),
        }
    }
}

impl Desk {
    fn unmeshed(&self) -> Answer {
        let index = Arc::clone(&self.index.borrow());
        let pods = index.missed().iter().take(MOST_UNMESHED).cloned().collect();
        Answer::Unmeshed { pods, all: index.missed().len() }
    }

    fn traffic(&self, window: Duration, namespace: Option<&str>) -> Answer {
        let index = Arc::clone(&self.index.borrow());
        let mut view = self.traffic.view(window, &index.names(), Instant::now());
        view.known_sidecars = index.sidecars();
        Answer::Traffic(Box::new(match namespace {
            Some(namespace) => view.in_namespace(namespace),
            None => view,
        }))
    }
}

fn in_full(error: &RotateError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_user_and_root_may_give_commands() {
        assert!(may_speak(1000, 1000) && may_speak(0, 1000));
        assert!(!may_speak(1001, 1000) && !may_speak(1000, 0));
    }
}
