//! HTTP connections to servers, kept and used again: HTTP/1 one request at a time, HTTP/2 many, but never so many that what
//! nobody reads could hold up the others.
//!
//! Knows neither how a connection is opened nor what protects it, only by which key it is found again, and until when it
//! may take new requests. Shared by [`crate::exchange::origins`] (plaintext) and the outbound side (mutual TLS with peers
//! that do not speak our dialect).

use std::{cell::RefCell, collections::HashMap, hash::Hash, rc::Rc, time::Duration};

use foldhash::fast::RandomState;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    exchange::{
        body::{Body, InUse, error_text},
        forgiving::Forgiving,
        headers::Speech,
        limits::{
            MAX_HEAD, MAX_HEADER_LIST, MAX_HEADERS, MAX_STREAMS, SEND_BUFFER, SERVER_CONNECTION_WINDOW,
            SERVER_STREAM_WINDOW,
        },
        names::Names,
        serve::LocalTasks,
    },
    limits::pressure::when_tight,
    shutdown::Shutdown,
};

const SWEEP: Duration = Duration::from_secs(10);
const SWEEP_DRAINING: Duration = Duration::from_millis(50);
// Connections kept for one server.
const MAX_KEPT: usize = 256;

/// The connections by key.
#[derive(Debug)]
pub struct Clients<K, N> {
    rest: Duration,
    shutdown: Shutdown,
    kept: RefCell<HashMap<K, Vec<Kept<N>>, RandomState>>,
    multiplexed: RefCell<HashMap<K, Vec<Multiplexed<N>>, RandomState>>,
}

/// A connection just opened.
#[derive(Debug)]
pub struct Opened<I, N> {
    /// Its bytes.
    pub io: I,
    /// It takes no new request from then on.
    pub expires: Option<Instant>,
    /// What is known of its other end.
    pub known: N,
    /// How it spells the names of headers.
    pub names: Names,
}

/// A connection that takes one request now.
#[derive(Debug)]
pub struct Client<N> {
    send: Send,
    expires: Option<Instant>,
    /// What is known of its other end.
    pub known: N,
}

/// A request without an answer.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub reason: String,
    /// The request, where nothing of it was sent.
    pub unsent: Option<Request<Body>>,
}

#[derive(Debug)]
enum Send {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>, InUse),
}

#[derive(Debug)]
struct Kept<N> {
    send: http1::SendRequest<Body>,
    since: Instant,
    expires: Option<Instant>,
    known: N,
}

#[derive(Debug)]
struct Multiplexed<N> {
    send: http2::SendRequest<Body>,
    // Held once here, and by each of its streams.
    streams: InUse,
    since: Instant,
    expires: Option<Instant>,
    known: N,
}

impl<K: Clone + Eq + Hash, N: Clone> Clients<K, N> {
    /// None yet. Those that rest longer than `rest` are closed.
    #[must_use]
    pub fn new(rest: Duration, shutdown: Shutdown) -> Self {
        Self { rest, shutdown, kept: RefCell::default(), multiplexed: RefCell::default() }
    }

    /// A connection that is open already. It may have been closed by the server just now.
    #[must_use]
    pub fn take(&self, key: &K, speech: Speech) -> Option<Client<N>> {
        let now = Instant::now();
        if speech == Speech::Http2 {
            let mut all = self.multiplexed.borrow_mut();
            // The first that has room: those that are needed no more come to rest.
            let one = all.get_mut(key)?.iter_mut().find(|one| one.has_room(now))?;
            one.since = now;
            return Some(one.client());
        }
        let mut all = self.kept.borrow_mut();
        let kept = all.get_mut(key)?;
        // The one that rested shortest is least likely to be closed by now.
        let ready = kept.iter().rposition(|one| one.send.is_ready() && !is_over(one.expires, now))?;
        let Kept { send, expires, known, .. } = kept.swap_remove(ready);
        Some(Client { send: Send::Http1(send), expires, known })
    }

    /// Begins to speak on a new connection, which ends with `ends`.
    ///
    /// # Errors
    /// Why it could not begin.
    pub async fn begin<I>(
        &self,
        key: &K,
        speech: Speech,
        Opened { io, expires, known, names }: Opened<I, N>,
        ends: impl Future<Output = ()> + 'static,
    ) -> Result<Client<N>, String>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        if speech != Speech::Http2 {
            let (send, connection) = http1::Builder::new()
                .title_case_headers(true)
                .preserve_header_case(names == Names::AsSent)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD)
                .handshake(TokioIo::new(Forgiving::new(io)))
                .await
                .map_err(|error| error_text(&error))?;
            self.spawn(connection, ends);
            return Ok(Client { send: Send::Http1(send), expires, known });
        }
        let (send, connection) = http2::Builder::new(LocalTasks(self.shutdown.tasks.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(SERVER_STREAM_WINDOW)
            .initial_connection_window_size(SERVER_CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            // Until the server has said that it speaks HTTP/2: an HTTP/1 server would read a request in the bytes of a
            // body that a policy never saw.
            .initial_max_send_streams(0)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| error_text(&error))?;
        self.spawn(connection, ends);
        let one = Multiplexed { send, streams: InUse::default(), since: Instant::now(), expires, known };
        let client = one.client();
        self.keep_multiplexed(key, one);
        Ok(client)
    }

    /// Sends a request that is in the form its server wants to hear, and keeps the connection for others.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn send(
        &self,
        key: &K,
        client: Client<N>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Failed> {
        let Client { send, expires, known } = client;
        let answered = match send {
            Send::Http2(mut send, stream) => {
                *request.version_mut() = Version::HTTP_2;
                let answered = send.try_send_request(request).await;
                // It takes no new stream: the next request finds another.
                if answered.as_ref().is_err_and(|error| error.message().is_some()) {
                    self.forget(key, &stream);
                }
                answered.map(|answer| answer.map(|body| Body::from((body, stream))))
            }
            Send::Http1(mut send) => {
                chunk(&mut request);
                let answered = send.try_send_request(request).await;
                if answered.is_ok() {
                    self.keep(key, Kept { send, since: Instant::now(), expires, known });
                }
                answered.map(|answer| answer.map(Body::from))
            }
        };
        // None of these asks for a switch (`upgrade` does): no peer could be told what this means.
        if answered.as_ref().is_ok_and(|answer| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
            return Err(Failed { reason: "it switched protocols unasked".to_owned(), unsent: None });
        }
        answered
            .map_err(|mut error| Failed { unsent: error.take_message(), reason: error_text(error.error()) })
    }

    /// Closes what rests too long, and everything that rests once draining has begun; ends when nothing is served any
    /// more. Not itself one of the tracked tasks.
    pub async fn run(&self) {
        let draining = &self.shutdown.draining;
        while !draining.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => self.sweep(when_tight(self.rest)),
                () = draining.cancelled() => {}
            }
        }
        while !self.shutdown.tasks.is_empty() && !self.shutdown.forced.is_cancelled() {
            self.sweep(Duration::ZERO);
            tokio::time::sleep(SWEEP_DRAINING).await;
        }
    }

    fn sweep(&self, rest: Duration) {
        self.kept.borrow_mut().retain(|_, kept| {
            kept.retain(|one| {
                let rests = one.send.is_ready() && one.since.elapsed() >= rest;
                !one.send.is_closed() && !rests
            });
            !kept.is_empty()
        });
        // Streams in flight live on when the handle goes.
        self.multiplexed.borrow_mut().retain(|_, all| {
            all.retain(|one| !one.send.is_closed() && one.since.elapsed() < rest.max(SWEEP_DRAINING));
            !all.is_empty()
        });
    }

    // Where many found none at once, one of theirs is enough: the others end with their first request.
    fn keep_multiplexed(&self, key: &K, one: Multiplexed<N>) {
        let (mut all, now) = (self.multiplexed.borrow_mut(), Instant::now());
        let kept = all.entry(key.clone()).or_default();
        kept.retain(|one| !one.send.is_closed() && !is_over(one.expires, now));
        if kept.len() < MAX_KEPT && !kept.iter().any(|one| one.has_room(now)) {
            kept.push(one);
        }
    }

    fn forget(&self, key: &K, stream: &InUse) {
        if let Some(all) = self.multiplexed.borrow_mut().get_mut(key) {
            all.retain(|one| !Rc::ptr_eq(&one.streams, stream));
        }
    }

    // Kept from the answer's head on; not ready again before its body has ended.
    fn keep(&self, key: &K, one: Kept<N>) {
        let mut all = self.kept.borrow_mut();
        if !all.contains_key(key) {
            all.insert(key.clone(), Vec::new());
        }
        let Some(kept) = all.get_mut(key) else { return };
        if kept.len() >= MAX_KEPT {
            kept.retain(|one| !one.send.is_closed());
        }
        if kept.len() < MAX_KEPT && !one.send.is_closed() {
            kept.push(one);
        }
    }

    fn spawn(
        &self,
        connection: impl Future<Output = hyper::Result<()>> + 'static,
        ends: impl Future<Output = ()> + 'static,
    ) {
        let forced = self.shutdown.forced.clone();
        self.shutdown.tasks.spawn_local(async move {
            tokio::select! {
                // Its requests have been told.
                _ = connection => {}
                () = ends => {}
                () = forced.cancelled() => {}
            }
        });
    }
}

impl<N: Clone> Multiplexed<N> {
    // The server's own bound may be lower: a request waits for it.
    fn has_room(&self, now: Instant) -> bool {
        let streams = Rc::strong_count(&self.streams) - 1;
        streams < MAX_STREAMS as usize && !self.send.is_closed() && !is_over(self.expires, now)
    }

    fn client(&self) -> Client<N> {
        let send = Send::Http2(self.send.clone(), Rc::clone(&self.streams));
        Client { send, expires: self.expires, known: self.known.clone() }
    }
}

fn is_over(expires: Option<Instant>, now: Instant) -> bool {
    expires.is_some_and(|expires| expires <= now)
}

// Said, since the server hears of no body otherwise where the method usually has none (GET).
fn chunk(request: &mut Request<Body>) {
    let knows_length = request.headers().contains_key(header::CONTENT_LENGTH);
    if request.version() == Version::HTTP_11 && !knows_length && !request.body().is_end_stream() {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
