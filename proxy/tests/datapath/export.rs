//! Spans on their way to a collector that really listens, over both protocols: what is sent, what is sent again, and what
//! a collector that is slow, full, away or out of its mind costs.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proxy::{
    config::{
        export::{Export, Protocol, Queue},
        tracing::{Sampler, Tracing},
    },
    net::socket::Sockets,
    telemetry::{
        access::{Access, Direction, Logs, Spans, Telemetry},
        metrics::{Exposition, Metrics},
        origin::Origin,
        otlp::{self, Collector},
        resource::Attributes,
        trace::TraceContext,
        writer::LostLines,
    },
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{net::TcpListener, task::spawn_local, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    pods::run,
    sink::{Mood, Sink, exports},
};

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

fn telemetry(queue: Queue) -> Rc<Telemetry> {
    let origin =
        Origin { service: "orders".into(), guessed: true, namespace: "shop".into(), ..Origin::default() };
    let metrics = Metrics::new(&LostLines::default(), &LostLines::default());
    Telemetry::new(origin, Logs::default(), metrics, Spans::Export(queue), Tracing::default())
}

fn request(telemetry: &Rc<Telemetry>, ratio: f64) -> Access {
    let mut access = telemetry.begin(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
    access.record.method = Some(http::Method::GET);
    access.record.status = Some(200);
    access.record.trace = TraceContext::root(Sampler::Ratio(ratio));
    access
}

fn send(telemetry: &Rc<Telemetry>, count: usize) {
    (0..count).for_each(|_| drop(request(telemetry, 1.0)));
}

fn to(export: &Export) -> Collector {
    Collector::new(export, Sockets::default(), Attributes::default()).unwrap()
}

fn count(telemetry: &Telemetry, line: &str) -> usize {
    let text = telemetry.metrics.encode(Exposition::OpenMetrics);
    let value = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or(0)
}

fn exported(telemetry: &Telemetry) -> usize {
    count(telemetry, "douane_otel_spans_exported_total")
}

fn dropped(telemetry: &Telemetry, reason: &str) -> usize {
    count(telemetry, &format!("douane_otel_spans_dropped_total{{reason=\"{reason}\"}}"))
}

/// Slower than the data path: attempts rest between each other.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A sidecar's exporter towards `sink`, which waits for nothing.
fn sends_to(sink: &Sink, alter: impl FnOnce(&mut Export)) -> Rc<Telemetry> {
    let mut export = sink.export();
    export.queue.delay = Duration::from_millis(20);
    alter(&mut export);
    let telemetry = telemetry(export.queue);
    exports(&telemetry, &export);
    telemetry
}

#[test]
fn spans_reach_a_collector_over_both_protocols_with_the_names_of_the_workload() {
    for protocol in BOTH {
        run(async {
            let (sink, stop) = (Sink::speaking(protocol).await, CancellationToken::new());
            let telemetry = telemetry(Queue::default());
            let sending = spawn_local(otlp::run(Rc::clone(&telemetry), to(&sink.export()), stop.clone()));

            let context = {
                let access = request(&telemetry, 1.0);
                access.record.trace.clone().unwrap()
            };
            drop(request(&telemetry, 0.0));
            eventually("the sampled span arrives", || sink.spans().len() == 1).await;
            telemetry.name_service("orders-v2");
            send(&telemetry, 1);
            stop.cancel();
            sending.await.unwrap();

            let spans = sink.spans();
            assert_eq!(spans.len(), 2, "the second one is flushed at the end");
            assert_eq!(exported(&telemetry), 2);
            assert_eq!((spans[0].service.as_str(), spans[1].service.as_str()), ("orders", "orders-v2"));
            let span = &spans[0].span;
            assert_eq!(span.trace_id, context.trace_id.to_be_bytes());
            assert_eq!(span.span_id, context.span_id.to_be_bytes());
            assert!(span.parent_span_id.is_empty() || span.parent_span_id == [0; 8]);
            assert_eq!((span.kind, span.name.as_str()), (SpanKind::Server as i32, "GET"));
            assert_eq!(sink.connections(), 1, "another name needs no other connection");
            let path = match protocol {
                Protocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                Protocol::HttpProtobuf => "/v1/traces",
            };
            assert_eq!(sink.heads()[0].uri.path(), path);
        });
    }
}

#[test]
fn headers_and_compression_are_as_the_operator_said() {
    for protocol in BOTH {
        run(async {
            let sink = Sink::speaking(protocol).await;
            let told = Export::read(|name| match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://{}", sink.address)),
                "OTEL_EXPORTER_OTLP_HEADERS" => Some("authorization=Bearer%20a,x-tenant=shop".to_owned()),
                "OTEL_EXPORTER_OTLP_COMPRESSION" => Some("gzip".to_owned()),
                "OTEL_EXPORTER_OTLP_PROTOCOL" if protocol == Protocol::Grpc => Some("grpc".to_owned()),
                "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("http/protobuf".to_owned()),
                _ => None,
            });
            let telemetry = sends_to(&sink, |export| {
                let delay = export.queue.delay;
                *export = told.unwrap().unwrap();
                export.queue.delay = delay;
            });

            send(&telemetry, 100);

            eventually("all arrive", || sink.spans().len() == 100).await;
            for head in sink.heads() {
                assert_eq!(head.headers["authorization"], "Bearer a");
                assert_eq!(head.headers["x-tenant"], "shop");
                assert!(head.headers["user-agent"].to_str().unwrap().starts_with("douane-proxy/"));
            }
        });
    }
}

#[test]
fn what_a_collector_asks_for_again_is_sent_again_and_not_before_its_time() {
    for (protocol, busy) in [
        (Protocol::HttpProtobuf, Mood::Fails(429, &[("retry-after", "1")])),
        (Protocol::HttpProtobuf, Mood::Fails(503, &[])),
        (Protocol::Grpc, Mood::Fails(14, &[("grpc-message", "busy")])),
        // google.rpc.RetryInfo of one second in a google.rpc.Status.
        (
            Protocol::Grpc,
            Mood::Fails(
                8,
                &[(
                    "grpc-status-details-bin",
                    "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAQ",
                )],
            ),
        ),
    ] {
        run(async {
            let sink = Sink::speaking(protocol).await;
            let waits = matches!(&busy, Mood::Fails(429 | 8, _));
            sink.answers([busy.clone(), busy]);
            let telemetry = sends_to(&sink, |_| {});
            let started = Instant::now();

            send(&telemetry, 5);

            eventually("they arrive", || exported(&telemetry) == 5).await;
            assert_eq!(
                (sink.spans().len(), sink.heads().len()),
                (5, 3),
                "each span once, after two refusals"
            );
            assert!(!waits || started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
            assert_eq!(count(&telemetry, "douane_otel_exporter_up"), 1);
        });
    }
}

#[test]
fn what_a_collector_will_never_take_is_dropped_and_counted() {
    for (protocol, refusal) in [
        (Protocol::HttpProtobuf, Mood::Fails(400, &[("retry-after", "1")])),
        (Protocol::HttpProtobuf, Mood::Fails(401, &[])),
        (Protocol::Grpc, Mood::Fails(3, &[])),
        (Protocol::Grpc, Mood::Fails(8, &[])),
    ] {
        run(async {
            let sink = Sink::speaking(protocol).await;
            sink.answers([refusal]);
            let telemetry = sends_to(&sink, |_| {});

            send(&telemetry, 4);
            eventually("they are dropped", || dropped(&telemetry, "export_failed") == 4).await;
            send(&telemetry, 3);
            eventually("the next ones go", || exported(&telemetry) == 3).await;

            assert_eq!(sink.spans().len(), 3);
        });
    }
}

#[test]
fn spans_that_are_taken_in_part_are_counted_and_garbage_is_no_failure() {
    for protocol in BOTH {
        run(async {
            let sink = Sink::speaking(protocol).await;
            sink.answers([Mood::Rejects(2), Mood::Garbage, Mood::Rejects(i64::MAX)]);
            let telemetry = sends_to(&sink, |_| {});

            for (sent, exports, rejects) in [(5, 3, 2), (5, 8, 2), (5, 8, 7)] {
                send(&telemetry, sent);
                eventually("a batch is told of", || {
                    (exported(&telemetry), dropped(&telemetry, "rejected")) == (exports, rejects)
                })
                .await;
            }
        });
    }
}

#[test]
fn a_collector_that_never_answers_costs_its_batch_and_not_the_next() {
    for protocol in BOTH {
        run(async {
            let sink = Sink::speaking(protocol).await;
            sink.answers([Mood::Silent, Mood::Silent]);
            let telemetry = sends_to(&sink, |export| {
                export.timeout = Duration::from_millis(200);
                export.queue.limit = Duration::from_millis(300);
            });

            send(&telemetry, 4);
            eventually("its time is over", || dropped(&telemetry, "export_failed") == 4).await;
            sink.answers([]);
            send(&telemetry, 3);

            eventually("the next ones go", || sink.spans().len() == 3).await;
        });
    }
}

#[test]
fn a_connection_that_ended_while_it_rested_costs_nothing() {
    for protocol in BOTH {
        run(async {
            let sink = Sink::speaking(protocol).await;
            let telemetry = sends_to(&sink, |_| {});
            send(&telemetry, 1);
            eventually("the first arrives", || exported(&telemetry) == 1).await;

            sink.hangs_up();
            send(&telemetry, 1);

            eventually("the second arrives", || exported(&telemetry) == 2).await;
            assert_eq!((sink.spans().len(), sink.connections()), (2, 2));
            assert_eq!(dropped(&telemetry, "export_failed"), 0);
        });
    }
}

#[test]
fn an_absent_collector_costs_spans_and_no_time() {
    run(async {
        // Bound and not listened on: nobody else gets this port, and whoever dials it is refused.
        let place = tokio::net::TcpSocket::new_v4().unwrap();
        place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = place.local_addr().unwrap();
        let mut export = Export::to(&format!("http://{address}"), Protocol::Grpc).unwrap();
        export.queue.most = 500;
        let (stop, telemetry) = (CancellationToken::new(), telemetry(export.queue));
        let sending = spawn_local(otlp::run(Rc::clone(&telemetry), to(&export), stop.clone()));

        let started = Instant::now();
        send(&telemetry, 600);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(dropped(&telemetry, "queue_full"), 100);

        sleep(Duration::from_millis(100)).await;
        stop.cancel();
        sending.await.unwrap();
        assert_eq!(dropped(&telemetry, "shutdown"), 500);
    });
}

#[test]
fn the_end_waits_two_seconds_for_a_collector_that_does_not_answer() {
    for protocol in BOTH {
        run(async {
            // Takes connections and says nothing.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let (stop, telemetry) = (CancellationToken::new(), telemetry(Queue::default()));
            let export = Export::to(&endpoint, protocol).unwrap();
            let sending = spawn_local(otlp::run(Rc::clone(&telemetry), to(&export), stop.clone()));
            send(&telemetry, 7);

            let started = Instant::now();
            stop.cancel();
            sending.await.unwrap();

            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
            assert_eq!(dropped(&telemetry, "shutdown"), 7);
        });
    }
}

/// A root of its own, and a collector's certificate for this name under it.
struct Web {
    root: String,
    acceptor: TlsAcceptor,
}

fn web(name: &str) -> Web {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let (issuer, leaf_key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
    let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(leaf.der().to_vec())],
            PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap(),
        )
        .unwrap();
    Web { root, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

struct File(PathBuf);

impl File {
    fn holding(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("douane-export-{name}-{}.pem", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn secure(sink: &Sink, protocol: Protocol, file: &Path) -> Export {
    let told = Export::read(|name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("https://{}", sink.address)),
        "OTEL_EXPORTER_OTLP_CERTIFICATE" => Some(file.display().to_string()),
        "OTEL_EXPORTER_OTLP_PROTOCOL" if protocol == Protocol::HttpProtobuf => {
            Some("http/protobuf".to_owned())
        }
        _ => None,
    });
    told.unwrap().unwrap()
}

#[test]
fn a_collector_behind_tls_is_believed_by_those_who_vouch_for_it_as_the_file_says_now() {
    for protocol in BOTH {
        run(async {
            let (theirs, other) = (web("127.0.0.1"), web("127.0.0.1"));
            let file = File::holding(&format!("roots-{protocol:?}"), &other.root);
            let sink = Sink::behind(protocol, Some(theirs.acceptor)).await;
            let export = secure(&sink, protocol, file.path());
            let telemetry = telemetry(export.queue);
            exports(&telemetry, &export);

            send(&telemetry, 3);
            eventually("it is dialled, and not believed", || sink.connections() > 0).await;
            assert_eq!((sink.spans().len(), count(&telemetry, "douane_otel_exporter_up")), (0, 0));
            fs::write(file.path(), format!("{}{}", other.root, theirs.root)).unwrap();

            eventually("spans wait until it is", || exported(&telemetry) == 3).await;
        });
    }
}

#[test]
fn a_collector_with_another_name_is_not_believed_and_a_file_without_certificates_is_refused_at_start() {
    run(async {
        let theirs = web("collector.example");
        let file = File::holding("name", &theirs.root);
        let sink = Sink::behind(Protocol::Grpc, Some(theirs.acceptor)).await;
        let export = secure(&sink, Protocol::Grpc, file.path());
        let telemetry = telemetry(export.queue);
        exports(&telemetry, &export);

        send(&telemetry, 3);

        eventually("it is dialled twice", || sink.connections() > 1).await;
        assert_eq!(sink.spans().len(), 0);
        fs::write(file.path(), "nothing").unwrap();
        let refused = Collector::new(&export, Sockets::default(), Attributes::default()).unwrap_err();
        assert!(refused.to_string().contains("it holds no certificate"), "{refused}");
    });
}
