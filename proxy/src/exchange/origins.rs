//! HTTP to plaintext servers: the pod's own application (inbound), and hosts without a sidecar (outbound).
//! Connections are kept and used again: HTTP/1 one request at a time, HTTP/2 many.
//!
//! Knows not whether a request may be sent; its callers do.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, time::Duration};

use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    exchange::{
        body::Body,
        headers::Speech,
        limits::{CONNECTION_WINDOW, MAX_HEAD, MAX_HEADER_LIST, MAX_HEADERS, SEND_BUFFER, STREAM_WINDOW},
        serve::LocalTasks,
    },
    net::socket::Sockets,
    refusal::Refusal,
    shutdown::Shutdown,
};

/// Kept connections that rest longer than this are closed; shorter than servers usually permit.
const REST: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(10);
const SWEEP_DRAINING: Duration = Duration::from_millis(50);
// Connections kept for one server.
const MAX_KEPT: usize = 256;

/// The plaintext servers we talk to.
#[derive(Debug)]
pub struct Origins {
    sockets: Sockets,
    connect_limit: Duration,
    shutdown: Shutdown,
    kept: RefCell<HashMap<SocketAddr, Vec<Kept>>>,
    multiplexed: RefCell<HashMap<SocketAddr, Multiplexed>>,
}

/// A request without an answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub refusal: Refusal,
    /// The request, where nothing of it was sent: another server may have it.
    pub unsent: Option<Box<Request<Body>>>,
}

#[derive(Debug)]
struct Kept {
    send: http1::SendRequest<Body>,
    since: Instant,
}

#[derive(Debug)]
struct Multiplexed {
    send: http2::SendRequest<Body>,
    since: Instant,
}

impl Origins {
    /// Connects by `sockets`, each within `connect_limit`.
    #[must_use]
    pub fn new(sockets: Sockets, connect_limit: Duration, shutdown: Shutdown) -> Self {
        Self { sockets, connect_limit, shutdown, kept: RefCell::default(), multiplexed: RefCell::default() }
    }

    /// Opens a connection for opaque bytes.
    ///
    /// # Errors
    /// [`Refusal::ConnectFailed`].
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, Refusal> {
        self.sockets
            .connect(to, self.connect_limit)
            .await
            .map_err(|error| Refusal::ConnectFailed { address: to, reason: error.to_string() })
    }

    /// Sends a request whose target is in absolute form, as the server wants to hear it.
    ///
    /// # Errors
    /// [`Unanswered`]: [`Refusal::ConnectFailed`], [`Refusal::UpstreamFailed`].
    pub async fn send(
        &self,
        to: SocketAddr,
        speech: Speech,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        let failed = |error: &hyper::Error| Unanswered {
            refusal: Refusal::UpstreamFailed { address: to, reason: error_text(error) },
            unsent: None,
        };
        *request.version_mut() = match speech {
            Speech::Http10 => Version::HTTP_10,
            Speech::Http11 => Version::HTTP_11,
            Speech::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                let mut send = match self.held(to) {
                    Some(send) => send,
                    // Boxed, here and below: what only a new connection needs is no part of each request.
                    None => match Box::pin(self.multiplexed(to)).await {
                        Ok(send) => send,
                        Err(refusal) => return Err(Unanswered { refusal, unsent: Some(Box::new(request)) }),
                    },
                };
                let answer = send.send_request(request).await;
                return answer.map(|answer| answer.map(Body::from)).map_err(|error| failed(&error));
            }
        };
        chunk(&mut request);
        // A kept connection may have been closed by the server just now. What was not sent is sent anew.
        while let Some(mut send) = self.take_kept(to) {
            match send.try_send_request(request).await {
                Ok(answer) => {
                    self.keep(to, send);
                    return Ok(answer.map(Body::from));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed(error.error())),
                },
            }
        }
        let mut send = match Box::pin(self.open(to)).await {
            Ok(send) => send,
            Err(refusal) => return Err(Unanswered { refusal, unsent: Some(Box::new(request)) }),
        };
        let answer = send.send_request(request).await.map_err(|error| failed(&error))?;
        self.keep(to, send);
        Ok(answer.map(Body::from))
    }

    /// Closes what rests too long, and everything that rests once draining has begun; ends when nothing is served any
    /// more. Not itself one of the tracked tasks.
    pub async fn run(&self) {
        let draining = &self.shutdown.draining;
        while !draining.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => self.sweep(REST),
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
        self.multiplexed
            .borrow_mut()
            .retain(|_, one| !one.send.is_closed() && one.since.elapsed() < rest.max(SWEEP_DRAINING));
    }

    // The one that rested shortest is least likely to be closed by now.
    fn take_kept(&self, to: SocketAddr) -> Option<http1::SendRequest<Body>> {
        let mut all = self.kept.borrow_mut();
        let kept = all.get_mut(&to)?;
        let ready = kept.iter().rposition(|one| one.send.is_ready())?;
        Some(kept.swap_remove(ready).send)
    }

    // Kept from the answer's head on; not ready again before its body has ended.
    fn keep(&self, to: SocketAddr, send: http1::SendRequest<Body>) {
        let mut all = self.kept.borrow_mut();
        let kept = all.entry(to).or_default();
        if kept.len() >= MAX_KEPT {
            kept.retain(|one| !one.send.is_closed());
        }
        if kept.len() < MAX_KEPT && !send.is_closed() {
            kept.push(Kept { send, since: Instant::now() });
        }
    }

    async fn open(&self, to: SocketAddr) -> Result<http1::SendRequest<Body>, Refusal> {
        let io = TokioIo::new(self.connect(to).await?);
        let (send, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .handshake(io)
            .await
            .map_err(|error| Refusal::UpstreamFailed { address: to, reason: error_text(&error) })?;
        self.spawn(connection);
        Ok(send)
    }

    fn held(&self, to: SocketAddr) -> Option<http2::SendRequest<Body>> {
        let mut all = self.multiplexed.borrow_mut();
        let one = all.get_mut(&to).filter(|one| !one.send.is_closed())?;
        one.since = Instant::now();
        Some(one.send.clone())
    }

    async fn multiplexed(&self, to: SocketAddr) -> Result<http2::SendRequest<Body>, Refusal> {
        let io = TokioIo::new(self.connect(to).await?);
        let (send, connection) = http2::Builder::new(LocalTasks(self.shutdown.tasks.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            // Until the server has said that it speaks HTTP/2: an HTTP/1 server would read a request in the bytes of a
            // body that a policy never saw.
            .initial_max_send_streams(0)
            .handshake(io)
            .await
            .map_err(|error| Refusal::UpstreamFailed { address: to, reason: error_text(&error) })?;
        self.spawn(connection);
        let one = Multiplexed { send: send.clone(), since: Instant::now() };
        self.multiplexed.borrow_mut().insert(to, one);
        Ok(send)
    }

    fn spawn(&self, connection: impl Future<Output = hyper::Result<()>> + 'static) {
        let forced = self.shutdown.forced.clone();
        self.shutdown.tasks.spawn_local(async move {
            tokio::select! {
                // Its requests have been told.
                _ = connection => {}
                () = forced.cancelled() => {}
            }
        });
    }
}

// Said, since the server hears of no body otherwise where the method usually has none (GET).
fn chunk(request: &mut Request<Body>) {
    let knows_length = request.headers().contains_key(header::CONTENT_LENGTH);
    if request.version() == Version::HTTP_11 && !knows_length && !request.body().is_end_stream() {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn error_text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
