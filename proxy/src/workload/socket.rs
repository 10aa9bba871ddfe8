//! The socket: who may connect, how many, for how long. A request finds its guard and its door here.
//!
//! Everything is bounded, and nothing here waits for a client: the same thread carries the pod's traffic.

use std::{
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::Path,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_reflection::server::{v1, v1alpha};

use super::{
    Sources,
    authority::Tolerant,
    doors::{self, Doors},
    guard::Guard,
    service::WorkloadApi,
    updates::Patience,
};
use crate::limits::share::{self, Sharing};

/// Headers of a request are a few hundred bytes.
const MAX_HEADERS: u32 = 8 * 1024;
/// Of what a client sends: a request fits many times.
const WINDOW: u32 = 64 * 1024;
/// Of what we send on one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Resets that a client may have pending, and that we make for its faults (rapid reset).
const MAX_RESETS: usize = 20;
/// Out of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client that does not answer a ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(15);

/// How much clients may ask of us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once; fairly shared between uids.
    pub(super) connections: usize,
    /// Streams at once on each.
    pub(super) streams: u32,
    /// A client that leaves a message unread for so long is left.
    pub(super) reading: Duration,
    /// A connection without a stream for so long is asked to end; one that has not asked anything by then just ends.
    pub(super) idle: Duration,
}

/// An application has one connection and two or three streams.
const BOUNDS: Bounds =
    Bounds { connections: 64, streams: 16, reading: Duration::from_secs(30), idle: Duration::from_secs(60) };

/// What the socket serves.
#[derive(Clone)]
pub struct Workload {
    sources: Sources,
    guard: Guard,
    bounds: Bounds,
}

/// Opens the socket at `path`, in the place of one that an earlier process left: everybody in the pod may connect, only we
/// may replace it.
///
/// # Errors
/// As the kernel says; a file that is no socket is left alone.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

impl Workload {
    /// Serves these uids; everybody who can reach the socket, when none are named.
    #[must_use]
    pub fn new(sources: Sources, uids: Option<Vec<u32>>) -> Self {
        Self { sources, guard: Guard::new(uids.map(Into::into)), bounds: BOUNDS }
    }

    #[cfg(test)]
    pub(super) fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Serves for ever.
    pub async fn run(self, listener: UnixListener) {
        let doors = match doors::open() {
            Ok(doors) => doors,
            Err(error) => return tracing::error!(%error, "our own descriptors cannot be read"),
        };
        let crowd = Crowd::default();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept on the workload socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(client) = stream.peer_cred() else { continue };
            let Some(place) = crowd.enter(client.uid(), self.bounds.connections) else {
                tracing::debug!(uid = client.uid(), "too many connections on the workload socket");
                continue;
            };
            tracing::debug!(uid = client.uid(), pid = client.pid(), "a client of the workload socket");
            let (workload, doors) = (self.clone(), doors.clone());
            tokio::task::spawn_local(async move {
                let _place = place;
                workload.serve(stream, client.uid(), doors).await;
            });
        }
    }

    async fn serve<R, O>(&self, stream: UnixStream, uid: u32, doors: Doors<R, O>)
    where
        R: v1::ServerReflection,
        O: v1alpha::ServerReflection,
    {
        let over = CancellationToken::new();
        let patience = Patience { limit: self.bounds.reading, over: over.clone() };
        let api = WorkloadApi { sources: self.sources.clone(), patience };
        let visits = Visits::default();
        let service = service_fn(|request: Request<Incoming>| {
            let visit = visits.begin();
            let admitted = self.guard.admit(request.headers(), uid, Instant::now());
            let (doors, api) = (doors.clone(), api.clone());
            async move {
                let answer = match admitted {
                    Ok(()) => doors.answer(api, request).await,
                    Err(refused) => refused.into_http(),
                };
                Ok::<_, Infallible>(answer.map(|body| Body::new(Visited { body, _visit: visit })))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.bounds.streams)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(Tolerant::new(stream)), service);
        let mut connection = pin!(connection);
        let (mut asked_to_end, mut seen) = (false, 0);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection on the workload socket");
                    }
                    return;
                }
                () = over.cancelled() => return,
                () = tokio::time::sleep(self.bounds.idle) => {}
            }
            let all = visits.all();
            if visits.open() > 0 || all != seen {
                seen = all;
            } else if all == 0 || asked_to_end {
                return;
            } else {
                connection.as_mut().graceful_shutdown();
                asked_to_end = true;
            }
        }
    }
}

// Who is connected.
#[derive(Debug, Clone, Default)]
struct Crowd(Rc<RefCell<HashMap<u32, usize>>>);

#[derive(Debug)]
struct Place {
    crowd: Crowd,
    uid: u32,
}

impl Crowd {
    fn enter(&self, uid: u32, most: usize) -> Option<Place> {
        let mut held = self.0.borrow_mut();
        let (own, taken) = (held.get(&uid).copied().unwrap_or(0), held.values().sum());
        if !share::may_have(own, taken, most, Sharing::Fair) {
            return None;
        }
        held.insert(uid, own + 1);
        Some(Place { crowd: self.clone(), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.crowd.0.borrow_mut();
        match held.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(held.remove(&self.uid)),
        }
    }
}

// The requests of one connection.
#[derive(Debug, Clone, Default)]
struct Visits {
    open: Arc<AtomicUsize>,
    all: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Visit(Visits);

impl Visits {
    fn begin(&self) -> Visit {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        Visit(self.clone())
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn all(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

// A visit lasts until its answer has ended.
struct Visited {
    body: Body,
    _visit: Visit,
}

impl http_body::Body for Visited {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
