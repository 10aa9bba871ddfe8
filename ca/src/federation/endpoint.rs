//! The bundle endpoint: one page, for anybody, always of the newest bundle. Everything about a visitor is bounded: how long
//! they may take, what they may ask, and how many there are at once.
//!
//! Knows not how a connection is secured: whoever starts it hands in the handshake.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use douane_proto::{bundle::BundleDocument, svid::TrustBundle};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Where the bundle lies; nothing else does.
pub const BUNDLE_PATH: &str = "/bundle";
/// Handshakes and visits at once; who comes then is not accepted before somebody leaves.
const MAX_CONNECTIONS: usize = 256;
/// From the handshake to the end of the answer.
const VISIT: Duration = Duration::from_secs(30);
/// A request is one line and some headers.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// See [`HEADER_LIMIT`]; the least that the HTTP library takes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Out of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Foreign control planes look five times between a root's publication and its first signature (Federation 4.1: 3 to 5).
const LOOKS_PER_LEAD: u32 = 5;
/// Nobody is asked to look more often.
const SHORTEST_HINT: u64 = 1;

/// What is published.
#[derive(Clone)]
pub struct Published {
    /// The newest bundle.
    pub bundle: watch::Receiver<Arc<TrustBundle>>,
    /// From the publication of a root to its first signature.
    pub root_lead: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Serves the bundle until `stop`. `accept` is the handshake; what it gives besides the stream is held during the visit.
pub async fn serve<A, F, S, G, E>(
    listener: TcpListener,
    accept: A,
    published: Published,
    stop: CancellationToken,
) where
    A: Fn(TcpStream, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(S, G), E>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    G: Send,
    E: std::fmt::Display + Send,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (accept, published, stop) = (accept.clone(), published.clone(), stop.clone());
        tokio::spawn(async move {
            match accept(stream, from).await {
                Ok((stream, seat)) => {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = time::timeout(VISIT, visit(stream, &published)) => {}
                    }
                    drop(seat);
                }
                Err(error) => {
                    published.metrics.handshake_failed();
                    tracing::debug!(%error, peer = %from, "a handshake of the bundle endpoint failed");
                }
            }
            drop(place);
        });
    }
}

// One request: whoever wants another comes again.
async fn visit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, published: &Published) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = published.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    server.max_buf_size(MAX_HEADER_BYTES).keep_alive(false);
    // A reader that went away is its own business.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

impl Published {
    /// When it is worth looking again, in seconds.
    #[must_use]
    pub fn refresh_hint(&self) -> u64 {
        (self.root_lead / LOOKS_PER_LEAD).as_secs().max(SHORTEST_HINT)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
        let (code, kind, body) = match (request.uri().path(), request.method()) {
            (BUNDLE_PATH, &Method::GET) => {
                let bundle = Arc::clone(&self.bundle.borrow());
                (StatusCode::OK, JSON, BundleDocument::of(&bundle, self.refresh_hint()).write())
            }
            (BUNDLE_PATH, _) => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, TEXT, format!("there is {BUNDLE_PATH} and nothing else\n")),
        };
        self.metrics.bundle_served(code.as_u16());
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind);
        // Whoever stands between must not keep a bundle that is not the newest any more.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if code == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}
