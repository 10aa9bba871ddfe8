//! A collector in the test's own process: it keeps the spans that sidecars send it by OTLP, over gRPC or HTTP, and answers
//! as it is told to.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io::Read as _,
    net::SocketAddr,
    rc::Rc,
};

use bytes::Bytes;
use douane_proxy::{
    config::export::{Export, Protocol},
    net::socket::Sockets,
    telemetry::{
        access::Telemetry,
        otlp::{self, Collector},
        resource::Attributes,
    },
};
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::spawn_local,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::pods::Pod;

/// Where spans arrive.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    protocol: Protocol,
    kept: Rc<Kept>,
}

/// A span, and who told it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) service: String,
    pub(crate) span: Span,
}

/// How a collector answers.
#[derive(Debug, Clone)]
pub(crate) enum Mood {
    /// As it should.
    Well,
    /// It takes all but so many.
    Rejects(i64),
    /// It takes what comes and answers nothing of this kind.
    Garbage,
    /// It never answers.
    Silent,
    /// With this status of HTTP or code of gRPC, and these headers or trailers.
    Fails(u16, &'static [(&'static str, &'static str)]),
}

#[derive(Default)]
struct Kept {
    spans: RefCell<Vec<Told>>,
    /// The heads of all requests.
    heads: RefCell<Vec<http::request::Parts>>,
    moods: RefCell<VecDeque<Mood>>,
    connections: Cell<usize>,
    /// Of the connections that are open.
    stop: RefCell<CancellationToken>,
}

impl Sink {
    pub(crate) async fn listen() -> Self {
        Self::speaking(Protocol::Grpc).await
    }

    pub(crate) async fn speaking(protocol: Protocol) -> Self {
        Self::behind(protocol, None).await
    }

    /// Behind TLS, where there is an acceptor.
    pub(crate) async fn behind(protocol: Protocol, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sink = Self { address, protocol, kept: Rc::default() };
        let kept = Rc::clone(&sink.kept);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, tls, stop) = (Rc::clone(&kept), tls.clone(), kept.stop.borrow().clone());
                spawn_local(async move {
                    kept.connections.update(|count| count + 1);
                    let served = async {
                        match tls {
                            None => serve(protocol, kept, stream).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(protocol, kept, stream).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = served => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        sink
    }

    /// How it is found, in plaintext.
    pub(crate) fn export(&self) -> Export {
        Export::to(&format!("http://{}", self.address), self.protocol).unwrap()
    }

    /// From now on it receives this pod's spans.
    pub(crate) fn receives(&self, pod: &Pod) {
        exports(&pod.telemetry, &self.export());
    }

    /// The next requests are answered so, one each; those after them well.
    pub(crate) fn answers(&self, moods: impl IntoIterator<Item = Mood>) {
        *self.kept.moods.borrow_mut() = moods.into_iter().collect();
    }

    /// All its connections break.
    pub(crate) fn hangs_up(&self) {
        self.kept.stop.replace(CancellationToken::new()).cancel();
    }

    /// All that came.
    pub(crate) fn spans(&self) -> Vec<Told> {
        self.kept.spans.borrow().clone()
    }

    /// The heads of the requests that brought it.
    pub(crate) fn heads(&self) -> Vec<http::request::Parts> {
        self.kept.heads.borrow().clone()
    }

    /// So many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.kept.connections.get()
    }

    /// Those of one trace.
    pub(crate) fn of_trace(&self, trace_id: u128) -> Vec<Told> {
        let mut spans = self.spans();
        spans.retain(|told| told.span.trace_id == trace_id.to_be_bytes());
        spans
    }
}

/// From now on what is told is sent there.
pub(crate) fn exports(telemetry: &Rc<Telemetry>, export: &Export) {
    let collector = Collector::new(export, Sockets::default(), Attributes::default()).unwrap();
    spawn_local(otlp::run(Rc::clone(telemetry), collector, CancellationToken::new()));
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

impl Kept {
    fn keep(&self, export: ExportTraceServiceRequest) {
        for ResourceSpans { resource, scope_spans, .. } in export.resource_spans {
            let service = value_of(&resource.unwrap_or_default().attributes, "service.name");
            let spans = scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.borrow_mut().extend(spans.map(|span| Told { service: service.clone(), span }));
        }
    }
}

async fn serve(protocol: Protocol, kept: Rc<Kept>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let io = TokioIo::new(stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let kept = Rc::clone(&kept);
        async move { Ok::<_, Infallible>(answer(&kept, protocol, request).await) }
    });
    let served = match protocol {
        Protocol::HttpProtobuf => server::conn::http1::Builder::new().serve_connection(io, service).await,
        Protocol::Grpc => server::conn::http2::Builder::new(Here).serve_connection(io, service).await,
    };
    // A sidecar that goes away breaks its connection.
    drop(served);
}

async fn answer(
    kept: &Kept,
    protocol: Protocol,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (encoding, kind) = match protocol {
        Protocol::HttpProtobuf => ("content-encoding", "application/x-protobuf"),
        Protocol::Grpc => ("grpc-encoding", "application/grpc"),
    };
    let is_gzip = head.headers.get(encoding).is_some();
    assert_eq!(head.headers["content-type"], kind);
    assert!(head.headers.get("traceparent").is_none(), "an export has no trace of its own");
    let message = match protocol {
        Protocol::HttpProtobuf => body,
        Protocol::Grpc => {
            assert_eq!(
                (body[0], &body[1..5]),
                (u8::from(is_gzip), &(body.len() as u32 - 5).to_be_bytes()[..])
            );
            body.slice(5..)
        }
    };
    let mut plain = Vec::new();
    match is_gzip {
        true => drop(GzDecoder::new(&message[..]).read_to_end(&mut plain).unwrap()),
        false => plain.extend_from_slice(&message),
    }
    let export = ExportTraceServiceRequest::decode(plain.as_slice()).unwrap();
    kept.heads.borrow_mut().push(head);
    let mood = kept.moods.borrow_mut().pop_front().unwrap_or(Mood::Well);
    let (status, more, body) = match mood {
        Mood::Silent => return pending().await,
        Mood::Fails(status, more) => (status, more, Vec::new()),
        Mood::Garbage => {
            kept.keep(export);
            (0, &[][..], b"\xff\xff\xff\xff<html>".to_vec())
        }
        Mood::Well => {
            kept.keep(export);
            (0, &[][..], Vec::new())
        }
        Mood::Rejects(rejected_spans) => {
            kept.keep(export);
            let error_message = "too old".to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            (0, &[][..], ExportTraceServiceResponse { partial_success }.encode_to_vec())
        }
    };
    let more = more.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let mut more = HeaderMap::from_iter(more);
    match protocol {
        Protocol::HttpProtobuf => {
            let mut answered = Response::new(Full::from(body).boxed());
            *answered.status_mut() = if status == 0 { 200 } else { status }.try_into().unwrap();
            answered.headers_mut().extend(more);
            answered
        }
        Protocol::Grpc => {
            more.insert("grpc-status", status.into());
            let frame = [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat();
            let body = Full::from(frame).with_trailers(async { Some(Ok(more)) });
            Response::builder().header("content-type", kind).body(body.boxed()).unwrap()
        }
    }
}

#[derive(Clone)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        spawn_local(async move { drop(task.await) });
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
