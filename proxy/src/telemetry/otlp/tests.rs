//! Against a collector that really listens, in this process.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
    time::Instant,
};

use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::span::SpanKind,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tower_service::Service as _;

use super::*;
use crate::{
    config::tracing::{Sampler, Tracing},
    telemetry::{
        access::{Access, Direction, Logs, Spans},
        metrics::{Exposition, Metrics},
        queue::MOST_SPANS,
        trace::TraceContext,
        writer::LostLines,
    },
};

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        assert!(request.metadata().get("traceparent").is_none(), "an export has no trace of its own");
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    fn spans(&self) -> usize {
        let requests = self.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }

    async fn serve(self, listener: TcpListener) {
        let service = TraceServiceServer::new(self);
        loop {
            let (stream, service) = (listener.accept().await.unwrap().0, service.clone());
            let answer = service_fn(move |request| service.clone().call(request));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::task::spawn_local(server.serve_connection(TokioIo::new(stream), answer));
        }
    }
}

fn telemetry() -> Rc<Telemetry> {
    let origin =
        Origin { service: "orders".into(), guessed: true, namespace: "shop".into(), ..Origin::default() };
    Telemetry::new(
        origin,
        Logs::default(),
        Metrics::new(&LostLines::default(), &LostLines::default()),
        Spans::Export,
        Tracing::default(),
    )
}

fn request(telemetry: &Rc<Telemetry>, ratio: f64) -> Access {
    let mut access = telemetry.begin(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
    access.record.method = Some(http::Method::GET);
    access.record.status = Some(200);
    access.record.trace = TraceContext::root(Sampler::Ratio(ratio));
    access
}

fn collector(address: SocketAddr) -> Collector {
    Collector::new(&format!("http://{address}"), Sockets::default(), Attributes::default()).unwrap()
}

fn count(telemetry: &Telemetry, line: &str) -> usize {
    let text = telemetry.metrics.encode(Exposition::OpenMetrics);
    let value = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or(0)
}

/// As the sidecar runs.
fn on_one_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build_local(Default::default()).unwrap().block_on(test);
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn spans_reach_a_collector_with_the_names_of_the_workload() {
    on_one_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sink, stop, telemetry) = (Sink::default(), CancellationToken::new(), telemetry());
        let serving = tokio::task::spawn_local(sink.clone().serve(listener));
        let sending = tokio::task::spawn_local(run(Rc::clone(&telemetry), collector(address), stop.clone()));

        let context = {
            let access = request(&telemetry, 1.0);
            access.record.trace.clone().unwrap()
        };
        drop(request(&telemetry, 0.0));
        eventually("the sampled span arrives", || sink.spans() == 1).await;
        telemetry.name_service("orders-v2");
        drop(request(&telemetry, 1.0));
        stop.cancel();
        sending.await.unwrap();
        serving.abort();

        assert_eq!(sink.spans(), 2, "the second one is flushed at the end");
        assert_eq!(count(&telemetry, "douane_otel_spans_exported_total"), 2);
        let names: RefCell<Vec<String>> = RefCell::default();
        for request in sink.0.lock().unwrap().iter() {
            let resource = request.resource_spans[0].resource.as_ref().unwrap();
            let name = resource.attributes.iter().find(|pair| pair.key == "service.name").unwrap();
            names.borrow_mut().push(format!("{:?}", name.value));
        }
        let names = names.into_inner();
        assert!(names[0].contains("\"orders\"") && names[1].contains("\"orders-v2\""), "{names:?}");
        let first = sink.0.lock().unwrap()[0].resource_spans[0].scope_spans[0].clone();
        assert_eq!(first.scope.unwrap().name, "douane.proxy");
        let span = &first.spans[0];
        assert_eq!(span.trace_id, context.trace_id.to_be_bytes());
        assert_eq!(span.span_id, context.span_id.to_be_bytes());
        assert!(span.parent_span_id.is_empty() || span.parent_span_id == [0; 8]);
        assert_eq!((span.kind, span.name.as_str()), (SpanKind::Server as i32, "GET"));
    });
}

#[test]
fn an_absent_collector_costs_spans_and_no_time_and_is_found_when_it_comes() {
    on_one_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (sink, stop, telemetry) = (Sink::default(), CancellationToken::new(), telemetry());
        let sending = tokio::task::spawn_local(run(Rc::clone(&telemetry), collector(address), stop.clone()));

        let started = Instant::now();
        (0..MOST_SPANS + 100).for_each(|_| drop(request(&telemetry, 1.0)));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(count(&telemetry, "douane_otel_spans_dropped_total{reason=\"queue_full\"}"), 100);

        let listener = TcpListener::bind(address).await.unwrap();
        let serving = tokio::task::spawn_local(sink.clone().serve(listener));
        eventually("all that waited arrives", || sink.spans() == MOST_SPANS).await;
        assert_eq!(count(&telemetry, "douane_otel_exporter_up"), 1);
        stop.cancel();
        sending.await.unwrap();
        serving.abort();
    });
}

#[test]
fn the_end_waits_two_seconds_for_a_collector_that_does_not_answer() {
    on_one_thread(async {
        // Takes connections and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, telemetry) = (CancellationToken::new(), telemetry());
        let sending = tokio::task::spawn_local(run(Rc::clone(&telemetry), collector(address), stop.clone()));
        (0..7).for_each(|_| drop(request(&telemetry, 1.0)));

        let started = Instant::now();
        stop.cancel();
        sending.await.unwrap();

        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        assert_eq!(count(&telemetry, "douane_otel_spans_dropped_total{reason=\"shutdown\"}"), 7);
        drop(listener);
    });
}

#[test]
fn an_endpoint_is_a_plaintext_url() {
    let new = |endpoint| Collector::new(endpoint, Sockets::default(), Attributes::default());
    for (endpoint, expected) in [
        ("http://127.0.0.1:4317", "127.0.0.1:4317"),
        ("collector:4317", "collector:4317"),
        ("http://[fd77::1]", "fd77::1:4317"),
    ] {
        assert_eq!(new(endpoint).unwrap().dial.to_string(), expected);
    }
    assert!(matches!(new("https://collector:4317"), Err(CollectorError::Scheme(_))));
    assert!(matches!(new("not a url"), Err(CollectorError::Endpoint(_))));
    assert!(new("http://").is_err());
}
