//! A collector in the test's own process: it keeps the spans that sidecars send it by OTLP over gRPC.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex},
};

use douane_proxy::{
    net::socket::Sockets,
    telemetry::{
        otlp::{self, Collector},
        resource::Attributes,
    },
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span, span::SpanKind, status::StatusCode},
};
use tokio::{net::TcpListener, task::spawn_local};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tower_service::Service as _;

use crate::pods::Pod;

/// Where spans arrive.
#[derive(Clone)]
pub(crate) struct Sink {
    spans: Arc<Mutex<Vec<Told>>>,
    collector: Collector,
    stop: Rc<RefCell<CancellationToken>>,
}

/// A span, and who told it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) service: String,
    pub(crate) span: Span,
}

impl Sink {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Collector::new(&endpoint, Sockets::default(), Attributes::default()).unwrap();
        let sink = Self { spans: Arc::default(), collector, stop: Rc::default() };
        let service = TraceServiceServer::new(Keeps(Arc::clone(&sink.spans)));
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                let answer = service_fn(move |request| service.clone().call(request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                spawn_local(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        sink
    }

    /// From now on it receives this pod's spans.
    pub(crate) fn receives(&self, pod: &Pod) {
        let stop = self.stop.borrow().clone();
        spawn_local(otlp::run(Rc::clone(&pod.telemetry), self.collector.clone(), stop));
    }

    /// All that came.
    pub(crate) fn spans(&self) -> Vec<Told> {
        self.spans.lock().unwrap().clone()
    }

    /// Those of one trace.
    pub(crate) fn of_trace(&self, trace_id: u128) -> Vec<Told> {
        let mut spans = self.spans();
        spans.retain(|told| told.span.trace_id == trace_id.to_be_bytes());
        spans
    }
}

impl Told {
    /// As text; empty where there is none.
    pub(crate) fn attribute(&self, key: &str) -> String {
        value_of(&self.span.attributes, key)
    }

    pub(crate) fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
    }

    /// How long it lasted.
    pub(crate) fn milliseconds(&self) -> u64 {
        (self.span.end_time_unix_nano - self.span.start_time_unix_nano) / 1_000_000
    }

    pub(crate) fn is_client(&self) -> bool {
        self.span.kind == SpanKind::Client as i32
    }
}

struct Keeps(Arc<Mutex<Vec<Told>>>);

#[tonic::async_trait]
impl TraceService for Keeps {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        for ResourceSpans { resource, scope_spans, .. } in request.into_inner().resource_spans {
            let service = value_of(&resource.unwrap_or_default().attributes, "service.name");
            let spans = scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| Told { service: service.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn value_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_ref());
    match found {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text.clone(),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        Some(AnyValue { value: Some(Value::BoolValue(truth)) }) => truth.to_string(),
        _ => String::new(),
    }
}
