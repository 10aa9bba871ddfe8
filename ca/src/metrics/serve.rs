//! The listener that shows the figures and how we are: `/metrics`, `/status`, `/livez`, `/readyz`.
//!
//! Knows not what `/status` says: that is handed in.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::Metrics;

/// A scraper or two, and an operator.
const MAX_CONNECTIONS: usize = 64;
/// A scraper that sends no request within this is cut off.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Out of descriptors: the next accept would fail at once as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/status` and `/readyz` say.
#[derive(Debug, Clone)]
pub struct Status {
    /// Why nobody should come to us now, if so.
    pub not_ready: Option<&'static str>,
    /// A JSON object.
    pub json: String,
}

/// [`serve`] on a thread of its own: whoever looks at our health is answered, however much the others have to do.
///
/// # Errors
/// When there is no thread to be had.
pub fn serve_apart(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    status: impl Fn() -> Status + Clone + Send + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serving = move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve(listener, metrics, status, stop).await,
                Err(error) => tracing::error!(%error, "metrics are not served"),
            }
        });
    };
    std::thread::Builder::new().name("health".to_owned()).spawn(serving).map(drop)
}

/// Serves `/metrics`, `/status` (JSON), `/livez` and `/readyz` until `stop`.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    status: impl Fn() -> Status + Clone + Send + 'static,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (metrics, status, stop) = (Arc::clone(&metrics), status.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &metrics, &status);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
            tokio::select! {
                () = stop.cancelled() => {}
                // A scraper that went away is its own business.
                _ = server.serve_connection(TokioIo::new(stream), service) => {}
            }
            drop(place);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    status: &impl Fn() -> Status,
) -> Response<Full<Bytes>> {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const TEXT: &str = "text/plain; charset=utf-8";
    let (code, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, OPENMETRICS, metrics.text()),
        (&Method::GET, "/status") => (StatusCode::OK, "application/json", status().json),
        (&Method::GET, "/livez") => (StatusCode::OK, TEXT, "alive\n".to_owned()),
        (&Method::GET, "/readyz") => match status().not_ready {
            None => (StatusCode::OK, TEXT, "ready\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        _ => (StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
