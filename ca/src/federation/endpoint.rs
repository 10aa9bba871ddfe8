//! The bundle endpoint: one page, for anybody, always of the newest bundle. Everything about a visitor is bounded: how long
//! they may take, and what they may ask.
//!
//! Knows not how a connection is accepted and secured (`tls`).

use std::{convert::Infallible, sync::Arc, time::Duration};

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
    sync::watch,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Where the bundle lies; nothing else does.
pub const BUNDLE_PATH: &str = "/bundle";
/// To the end of the answer.
const VISIT: Duration = Duration::from_secs(30);
/// A request is one line and some headers.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// See [`HEADER_LIMIT`]; the least that the HTTP library takes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
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

/// Serves one reader, within bounded time and until `stop`: one request, and whoever wants another comes again.
pub async fn visit<S>(stream: S, published: Published, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let response = published.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    server.max_buf_size(MAX_HEADER_BYTES).keep_alive(false);
    let answered = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        // A reader that went away is its own business.
        _ = time::timeout(VISIT, answered) => {}
    }
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
