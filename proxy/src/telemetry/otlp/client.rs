//! The client that OpenTelemetry's exporter sends its batches by: over gRPC or HTTP, and again where the specification
//! says so, within the time of one batch.
//!
//! The exporter's own clients neither tell how many spans a collector rejected nor rest between batches as long as one
//! asks for; and all sockets come from `net`.

use std::{
    io::Write as _,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    backoff::Backoff,
    config::export::{Compression, Export, Protocol},
    net::socket::Sockets,
    telemetry::otlp::{
        answer::{Answer, Taken, framed, of_grpc, of_http},
        road::{Connection, Reply, Road, RoadError},
    },
    tls::web::WebError,
};

/// Sends batches, one at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    road: Road,
    headers: HeaderMap,
    compression: Compression,
    // One request, and all attempts for one batch.
    timeout: Duration,
    limit: Duration,
    connection: tokio::sync::Mutex<Option<Connection>>,
    told: Mutex<Told>,
}

/// What there is to say of the last batch, besides whether it went.
#[derive(Debug, Default)]
struct Told {
    taken: Taken,
    failure: String,
    rest: Option<Instant>,
}

impl Client {
    pub(super) fn new(export: &Export, sockets: Sockets) -> Result<Self, WebError> {
        Ok(Self(Arc::new(Shared {
            road: Road::new(export, sockets)?,
            headers: headers(export),
            compression: export.compression,
            timeout: export.timeout,
            limit: export.queue.limit,
            connection: tokio::sync::Mutex::default(),
            told: Mutex::default(),
        })))
    }

    /// Connects, unless it is connected.
    pub(super) async fn reach(&self) -> Result<(), RoadError> {
        let mut held = self.0.connection.lock().await;
        if held.as_ref().is_none_or(|connection| !connection.is_open()) {
            *held = None;
            *held = Some(self.0.road.open().await?);
        }
        Ok(())
    }

    /// Waits as long as the collector has asked for.
    pub(super) async fn rest(&self) {
        let until = self.told(|told| told.rest.take());
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// What the collector said of the last batch, which it took.
    pub(super) fn taken(&self) -> Taken {
        self.told(|told| mem::take(&mut told.taken))
    }

    /// Why the last batch did not go.
    pub(super) fn failure(&self) -> String {
        self.told(|told| mem::take(&mut told.failure))
    }

    fn told<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.0.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn deliver(&self, batch: Bytes) -> Result<Taken, String> {
        let deadline = Instant::now() + self.0.limit;
        let body = self.0.encoded(batch).await?;
        let mut failures = 0;
        loop {
            let (why, after) = match self.attempt(&body, deadline).await {
                Answer::Taken(taken) => return Ok(taken),
                Answer::Refused(why) => return Err(why),
                Answer::Again { why, after } => (why, after),
            };
            failures += 1;
            let after = after.unwrap_or_default().min(LONGEST_REST);
            let pause = AGAIN.wait(failures, rand::random()).max(after);
            if failures >= MOST_ATTEMPTS || Instant::now() + pause >= deadline {
                // What it asked for holds for the next batch as well.
                self.told(|told| told.rest = (!after.is_zero()).then(|| Instant::now() + after));
                return Err(why);
            }
            sleep(pause).await;
        }
    }

    async fn attempt(&self, body: &Bytes, deadline: Instant) -> Answer {
        let again = |why: String| Answer::Again { why, after: None };
        let limit = self.0.timeout.min(deadline.saturating_duration_since(Instant::now()));
        let mut held = self.0.connection.lock().await;
        loop {
            let (mut connection, is_used) = match held.take().filter(Connection::is_open) {
                Some(connection) => (connection, true),
                None => match self.0.road.open().await {
                    Ok(connection) => (connection, false),
                    Err(error) => return again(error.to_string()),
                },
            };
            let request = match self.0.road.request(self.0.headers.clone(), body.clone()) {
                Ok(request) => request,
                Err(error) => return Answer::Refused(error.to_string()),
            };
            match timeout(limit, connection.ask(request)).await {
                Ok(Ok(reply)) => {
                    *held = Some(connection);
                    return self.0.meaning(&reply);
                }
                // Its end may have been on the way while it rested; a new one tells.
                Ok(Err(_)) if is_used => {}
                Ok(Err(error)) => return again(error.to_string()),
                Err(_) => return again(format!("the collector gives no answer within {limit:?}")),
            }
        }
    }
}

impl Shared {
    // Off the data path's thread where it takes time.
    async fn encoded(&self, batch: Bytes) -> Result<Bytes, String> {
        let gzip = self.compression == Compression::Gzip;
        let batch = if gzip {
            let zipped = tokio::task::spawn_blocking(move || {
                let mut zipped = GzEncoder::new(Vec::new(), Level::fast());
                zipped.write_all(&batch)?;
                zipped.finish()
            });
            let zipped = zipped.await.map_err(|error| error.to_string())?;
            Bytes::from(zipped.map_err(|error| error.to_string())?)
        } else {
            batch
        };
        match self.road.protocol {
            Protocol::HttpProtobuf => Ok(batch),
            Protocol::Grpc => framed(&batch, gzip)
                .map(Bytes::from)
                .ok_or_else(|| "the batch is too long for gRPC".to_owned()),
        }
    }

    fn meaning(&self, reply: &Reply) -> Answer {
        let Reply { status, headers, trailers, body } = reply;
        match self.road.protocol {
            Protocol::HttpProtobuf => of_http(*status, headers, body, SystemTime::now()),
            Protocol::Grpc => of_grpc(*status, trailers.as_ref().unwrap_or(headers), body),
        }
    }
}

/// What OpenTelemetry's exporter sees: a server that takes all, or an error. It is told to try once.
#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match self.deliver(request.into_body()).await {
            Ok(taken) => {
                self.told(|told| told.taken = taken);
                Ok(Response::new(Bytes::new()))
            }
            Err(why) => {
                self.told(|told| told.failure.clone_from(&why));
                Err(why.into())
            }
        }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.road.endpoint.fmt(f)
    }
}

fn headers(export: &Export) -> HeaderMap {
    let mut headers = export.headers.0.clone();
    let gzip = (export.compression == Compression::Gzip).then(|| HeaderValue::from_static("gzip"));
    let (kind, encoding) = match export.protocol {
        Protocol::Grpc => {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            ("application/grpc", header::HeaderName::from_static("grpc-encoding"))
        }
        Protocol::HttpProtobuf => ("application/x-protobuf", header::CONTENT_ENCODING),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(gzip.map(|gzip| (encoding, gzip)));
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
    headers
}

const USER_AGENT: &str = concat!("douane-proxy/", env!("CARGO_PKG_VERSION"));
const AGAIN: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };
// Of one batch; its time ends mostly before.
const MOST_ATTEMPTS: u32 = 8;
// A collector that asks for more is asked sooner: spans wait for it, and the oldest are not the most interesting.
const LONGEST_REST: Duration = Duration::from_secs(60);
