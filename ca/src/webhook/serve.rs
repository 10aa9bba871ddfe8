//! A visit of the API server, which keeps its connections: POST, a bounded body, a bounded time, one of two paths.
//!
//! Knows not how a connection is accepted and secured (`tls`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
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
    sync::Notify,
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    judge::{mutate, validate},
    review::Review,
};
use crate::{inject::Terms, metrics::Metrics, policy::asked::Mesh};

/// An object is 1.5 MiB at most, and an update brings the old one as well.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// The API server waits five seconds for the whole.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// Whoever has come to ask asks by then; others need the place.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// A connection may rest between two questions for so long.
const HEADER_LIMIT: Duration = Duration::from_secs(60);
/// Then the API server opens another, and sees our newest certificate.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);

/// What answers depend on.
#[derive(Clone)]
pub struct Bench {
    /// What pods get.
    pub terms: Arc<Terms>,
    /// What policies are held against.
    pub mesh: Arc<Mesh>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Answers one API server's questions until it goes, its time is up, or `stop`.
pub async fn visit<S>(stream: S, bench: Bench, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Notify::new();
    let service = service_fn(async |request| {
        asked.notify_one();
        Ok::<_, Infallible>(bench.answer(request).await)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut connection => return,
        () = asked.notified() => {}
        () = stop.cancelled() => return,
        () = time::sleep(FIRST_LIMIT) => return,
    }
    tokio::select! {
        // A caller that went away is its own business.
        _ = &mut connection => return,
        () = stop.cancelled() => {}
        () = time::sleep(CONNECTION_LIFE) => {}
    }
    // What is being answered is answered.
    connection.as_mut().graceful_shutdown();
    let _ = time::timeout(BODY_LIMIT, connection).await;
}

impl Bench {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        if !matches!(path.as_str(), "/inject" | "/validate") {
            return plain(StatusCode::NOT_FOUND, "there are /inject and /validate");
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "POST only");
        }
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let body = match time::timeout(BODY_LIMIT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return self.unreadable(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
            Err(_) => return self.unreadable(StatusCode::REQUEST_TIMEOUT, "the body does not come"),
        };
        let bench = self.clone();
        // Milliseconds for an object of usual size, and more for the largest: others must not wait for it.
        let judged = tokio::task::spawn_blocking(move || bench.judge(&path, &body)).await;
        judged.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "the object could not be judged"))
    }

    fn judge(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let review = match Review::parse(body) {
            Ok(review) => review,
            Err(error) => return self.unreadable(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let (verdict, counted) = match path {
            "/inject" => mutate(&review, &self.terms),
            _ => validate(&review, &self.mesh),
        };
        self.metrics.admission(counted.0);
        if let Some(why) = &verdict.refused {
            tracing::info!(kind = review.kind, namespace = review.namespace, why, "not admitted");
        }
        let mut answer = plain(StatusCode::OK, &verdict.write(&review.uid));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    fn unreadable(&self, code: StatusCode, why: &str) -> Response<Full<Bytes>> {
        self.metrics.admission("unreadable");
        tracing::info!(why, "a question of the webhook cannot be read");
        plain(code, why)
    }
}

fn plain(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = code;
    response
}
