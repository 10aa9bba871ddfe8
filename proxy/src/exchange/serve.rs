//! HTTP served: from an application's socket, or from bytes inside a stream that turned out to be HTTP.
//!
//! Knows not what a request becomes; the handler does.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use hyper::{rt::Executor, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{
    config::Limits,
    exchange::{
        body::Body,
        headwatch::{HeadWatch, Verdict, Watch},
        limits::{
            CONNECTION_WINDOW, MAX_HEAD, MAX_HEADER_LIST, MAX_HEADERS, MAX_LOCAL_RESETS, MAX_PENDING_RESETS,
            MAX_STREAMS, SEND_BUFFER, STREAM_WINDOW,
        },
        names::{self, Names},
        upgrade::Upgrade,
    },
    net::detect::Opening,
    shutdown::Shutdown,
};

// A peer that does not answer a ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Which HTTP to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// The same, with the names of headers kept as they are sent.
    Http1AsSent,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Framing {
    /// The one that a connection opens with, if it is HTTP.
    #[must_use]
    pub fn of(opening: Opening) -> Option<Self> {
        match opening {
            Opening::Http1 => Some(Self::Http1),
            Opening::Http2 => Some(Self::Http2),
            Opening::Tls | Opening::Other | Opening::Silent | Opening::Closed => None,
        }
    }

    /// With names spelt so.
    #[must_use]
    pub fn spelt(self, names: Names) -> Self {
        match (self, names) {
            (Self::Http1, Names::AsSent) => Self::Http1AsSent,
            (framing, _) => framing,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// Every answer that was begun was also ended, or its client had gone.
    InOrder,
    /// In the middle of an answer.
    Cut,
    /// A request's head did not arrive in time. No request's record tells it: there was none yet.
    Late,
}

/// Runs hyper's tasks on this thread.
#[derive(Debug, Clone)]
pub struct LocalTasks(pub TaskTracker);

impl<F> Executor<F> for LocalTasks
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn_local(task);
    }
}

/// Serves one connection until it ends, or until draining has let its requests finish. The handler is told what the
/// framing of the request gave reason to doubt.
pub async fn serve<I, H, Answer>(
    io: I,
    framing: Framing,
    limits: Limits,
    shutdown: &Shutdown,
    handler: H,
) -> Ended
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Body>, Verdict) -> Answer,
    Answer: Future<Output = Response<Body>> + 'static,
{
    let (ended, is_late) = match framing {
        Framing::Http1 | Framing::Http1AsSent => {
            let names = if framing == Framing::Http1AsSent { Names::AsSent } else { Names::Titled };
            let (io, watch) = HeadWatch::new(io, limits);
            match serve_http1(io, &watch, names, shutdown, handler).await {
                Ok(Some(Switched { io, read, upgrade })) => {
                    return if upgrade.relay(io, read).await.is_ok() { Ended::InOrder } else { Ended::Cut };
                }
                ended => (ended.map(drop), watch.is_late()),
            }
        }
        Framing::Http2 => (serve_http2(io, shutdown, handler).await, false),
    };
    let Err(error) = ended else { return Ended::InOrder };
    debug!(%error, "a connection from an application ended");
    match (is_late, error.is_user()) {
        (true, _) => Ended::Late,
        // hyper calls us its user: the body that we gave it broke.
        (false, true) => Ended::Cut,
        (false, false) => Ended::InOrder,
    }
}

// A connection that speaks another protocol from now on.
struct Switched<I> {
    io: I,
    // What was read of the client behind its request.
    read: Bytes,
    upgrade: Box<Upgrade>,
}

async fn serve_http1<I, H, Answer>(
    io: HeadWatch<I>,
    watch: &Watch,
    spelling: Names,
    shutdown: &Shutdown,
    handler: H,
) -> hyper::Result<Option<Switched<I>>>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Body>, Verdict) -> Answer,
    Answer: Future<Output = Response<Body>> + 'static,
{
    let switching: Rc<RefCell<Option<Box<Upgrade>>>> = Rc::default();
    // Combinators, not blocks: a block would hold the handler's future twice.
    let service = service_fn(|mut request: Request<_>| {
        if spelling == Names::AsSent {
            names::keep(&mut request);
        }
        let (answering, switching) = (watch.answering(), Rc::clone(&switching));
        handler(request.map(Body::from), watch.verdict()).map(move |mut answer| {
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                *switching.borrow_mut() = answer.body_mut().take_guard();
            }
            Ok::<_, Infallible>(answer.map(|body| body.while_answering(answering)))
        })
    });
    let mut connection = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // Time limits are the head watch's: hyper's would also close a connection that idles between requests.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .half_close(true)
        .title_case_headers(true)
        .preserve_header_case(spelling == Names::AsSent)
        // The application's own date stands, or none.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = shutdown.draining.cancelled() => None,
    };
    match ended {
        Some(ended) => ended?,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await?;
        }
    }
    let Some(upgrade) = switching.take() else { return Ok(None) };
    let parts = connection.into_parts();
    Ok(Some(Switched { io: parts.io.into_inner().into_inner(), read: parts.read_buf, upgrade }))
}

async fn serve_http2<I, H, Answer>(io: I, shutdown: &Shutdown, handler: H) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Body>, Verdict) -> Answer,
    Answer: Future<Output = Response<Body>> + 'static,
{
    let service = service_fn(|request: Request<_>| {
        handler(request.map(Body::from), Verdict::Clear).map(Ok::<_, Infallible>)
    });
    let mut connection = pin!(
        conn::http2::Builder::new(LocalTasks(shutdown.tasks.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(io), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.draining.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
