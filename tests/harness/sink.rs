//! An OTLP collector for tests: takes spans by gRPC and by HTTP (protobuf) on one port and keeps them. Dropped, it is gone
//! as a killed collector is; another may begin at the same address.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use douane_examples::demo::span::{Span, spans};
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message as _;
use tokio::{runtime::Builder, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower_service::Service as _;

use crate::loopback;

/// A collector that listens until it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    kept: Kept,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// It takes what comes and never says so.
    Silent,
    /// It has no room: come again later.
    Full,
}

#[derive(Debug, Clone)]
struct Kept {
    spans: Arc<Mutex<Vec<Span>>>,
    mood: watch::Sender<Mood>,
}

impl Sink {
    /// At an address of its own.
    ///
    /// # Panics
    /// When no port of loopback can be bound.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(loopback::own())
    }

    /// At an address.
    ///
    /// # Panics
    /// When it cannot be bound.
    #[must_use]
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a collector's address can be bound");
        let address = listener.local_addr().expect("it was bound");
        let kept = Kept { spans: Arc::default(), mood: watch::Sender::new(Mood::Well) };
        let stop = CancellationToken::new();
        let (served, stopped) = (kept.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            // What runs on it ends with it: connections break, as when a process is killed.
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = serve(listener, served) => {}
                }
            });
        });
        Self { address, kept, stop, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers otherwise from now on.
    pub fn feels(&self, mood: Mood) {
        self.kept.mood.send_replace(mood);
    }

    /// All that came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.kept.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came so far of one trace, by its 32 digits.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace == id);
        spans
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Kept {
    fn keep(&self, export: &ExportTraceServiceRequest) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(export));
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let mood = *self.mood.borrow();
        match mood {
            Mood::Well => self.keep(request.get_ref()),
            Mood::Silent => std::future::pending().await,
            Mood::Full => return Err(Status::resource_exhausted("no room")),
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn serve(listener: TcpListener, kept: Kept) {
    listener.set_nonblocking(true).expect("a listener can be asked not to block");
    let listener = tokio::net::TcpListener::from_std(listener).expect("it belongs to this runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let kept = kept.clone();
        let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
            let kept = kept.clone();
            async move { Ok::<_, Infallible>(answer(kept, request).await) }
        });
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}

// OTLP/HTTP 1.x: a POST of protobuf to /v1/traces; all else is gRPC's.
async fn answer(kept: Kept, request: Request<Incoming>) -> Response<Either<Full<Bytes>, Body>> {
    if request.uri().path() != "/v1/traces" {
        let answered = TraceServiceServer::new(kept).call(request).await;
        let Ok(answered) = answered;
        return answered.map(Either::Right);
    }
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let export = body.ok().and_then(|body| ExportTraceServiceRequest::decode(body).ok());
    let mood = *kept.mood.borrow();
    let status = match (mood, export) {
        (Mood::Silent, _) => std::future::pending().await,
        (Mood::Full, _) => StatusCode::TOO_MANY_REQUESTS,
        (Mood::Well, None) => StatusCode::BAD_REQUEST,
        (Mood::Well, Some(export)) => {
            kept.keep(&export);
            StatusCode::OK
        }
    };
    let mut answered = Response::new(Either::Left(Full::default()));
    answered.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-protobuf"));
    *answered.status_mut() = status;
    answered
}
