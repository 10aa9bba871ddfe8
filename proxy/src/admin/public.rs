//! Port 15020, which anybody reaches without TLS: readiness, liveness and metrics, the kubelet's configured questions to the
//! application, and nothing that helps a stranger.
//! A small server with small bounds: each connection carries one request.

use std::{convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{
    health::{Health, Phase},
    probe::Asker,
};
use crate::telemetry::{access::Telemetry, metrics::Exposition};

/// Connections served at once; probes and a scraper need a handful.
const MOST_CONNECTIONS: usize = 64;
/// From accepting to the last byte of the answer; a probe of the application may take a minute.
const CONNECTION_LIMIT: Duration = Duration::from_secs(70);
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Out of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is served.
#[derive(Debug, Clone)]
pub struct Public {
    /// Are we ready?
    pub health: Health,
    /// What is counted.
    pub telemetry: Rc<Telemetry>,
    /// Who asks the application for the kubelet.
    pub asker: Option<Asker>,
}

impl Public {
    /// Serves for ever.
    pub async fn run(self, listener: TcpListener) {
        let seats = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let public = self.clone();
                    tokio::task::spawn_local(async move {
                        let _seat = seat;
                        public.serve(stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept on the health port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        let answer = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request).await));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        match tokio::time::timeout(CONNECTION_LIMIT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection on the health port"),
            Err(_) => tracing::debug!("a connection on the health port took too long"),
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.uri().path() {
            "/readyz" => self.readiness(),
            "/livez" => plain(StatusCode::OK, "alive\n"),
            "/metrics" => {
                let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
                let exposition = Exposition::wanted(accept);
                let mut answer = plain(StatusCode::OK, self.telemetry.metrics.encode(exposition));
                let kind = HeaderValue::from_static(exposition.content_type());
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            path => self.application(path).await,
        }
    }

    // Only what was configured; hooks stand apart from health.
    async fn application(&self, path: &str) -> Response<Full<Bytes>> {
        let of = |road: &str, kinds: &[&str]| {
            let name = path.strip_prefix(road)?;
            let (_, kind) = name.split_once('/')?;
            kinds.contains(&kind).then_some(name)
        };
        let name = of("/app-health/", &["livez", "readyz", "startupz"])
            .or_else(|| of("/app-lifecycle/", &["poststart", "prestop"]));
        let answered = match (name, &self.asker) {
            (Some(name), Some(asker)) => asker.ask(name).await,
            _ => None,
        };
        answered
            .map_or_else(|| plain(StatusCode::NOT_FOUND, "not here\n"), |(status, said)| plain(status, said))
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let phase = self.health.phase();
        let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        plain(status, format!("{}\n", phase.text()))
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}
