//! A [`Record`] at its end as a span, by OpenTelemetry's semantic conventions 1.44 (HTTP, RPC, TLS), with our own
//! attributes under `douane.`. Two spans a hop: CLIENT here on the way out, SERVER on the way in.
//!
//! Knows nothing of how spans travel (see [`crate::telemetry::otlp`]).

use std::borrow::Cow;

use http::uri::Authority;
use opentelemetry::{
    Array, InstrumentationScope, KeyValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::telemetry::{
    grpc,
    line::cut,
    outcome::Outcome,
    record::{Direction, Lasted, Protection, Record},
    trace::TraceContext,
    tracer::{Cause, Link},
};

/// The span of a record that has a trace.
pub(crate) fn span(
    record: &Record,
    trace: &TraceContext,
    lasted: Lasted,
    scope: &InstrumentationScope,
) -> SpanData {
    let (status, error) = status(record);
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace.trace_id.to_be_bytes()),
            SpanId::from_bytes(trace.span_id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: trace.parent_id.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_be_bytes())),
        parent_span_is_remote: trace.parent_id.is_some(),
        span_kind: match record.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        },
        name: name(record),
        start_time: lasted.from,
        end_time: lasted.until(),
        attributes: attributes(record, error),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: links(record.link),
        status,
        instrumentation_scope: scope.clone(),
    }
}

fn links(link: Option<Link>) -> SpanLinks {
    let mut links = SpanLinks::default();
    if let Some(Link { trace_id, span_id, cause }) = link {
        let other = SpanContext::new(
            TraceId::from_bytes(trace_id.to_be_bytes()),
            SpanId::from_bytes(span_id.to_be_bytes()),
            TraceFlags::default(),
            true,
            TraceState::NONE,
        );
        let why = match cause {
            Cause::Inferred => "douane.inferred",
            Cause::Restarted => "douane.restarted",
        };
        links.links.push(opentelemetry::trace::Link::new(other, vec![KeyValue::new(why, true)], 0));
    }
    links
}

/// The status and `error.type`.
fn status(record: &Record) -> (Status, Option<Cow<'static, str>>) {
    if !Outcome::of(record).is_error_of(record.direction) {
        return (Status::Unset, None);
    }
    match (record.refusal, record.grpc_status, record.status) {
        (Some(refusal), ..) => {
            let reason = record.reason.as_deref().map(cut).unwrap_or_default().to_owned();
            (Status::error(reason), Some(refusal.into()))
        }
        (None, Some(code), _) => failure(grpc::name(code)),
        (None, None, Some(status)) => failure(status.to_string().into()),
        (None, None, None) => (Status::Unset, None),
    }
}

// The code explains itself: no description.
fn failure(error: Cow<'static, str>) -> (Status, Option<Cow<'static, str>>) {
    (Status::error(""), Some(error))
}

/// Never the path: names are for grouping.
fn name(record: &Record) -> Cow<'static, str> {
    if record.grpc {
        return rpc_method(record).map_or("grpc".into(), |method| method.to_owned().into());
    }
    match (&record.method, record.known_method()) {
        (None, _) => "tcp".into(),
        (Some(_), Some(known)) => known.into(),
        (Some(_), None) => "HTTP".into(),
    }
}

/// `package.Service/Method`, where the application knows it. A peer may ask for any name: one that was refused or is
/// not implemented does not become the name of a span.
fn rpc_method(record: &Record) -> Option<&str> {
    let served = record.refusal.is_none() && record.grpc_status != Some(UNIMPLEMENTED);
    original_rpc_method(record).filter(|_| served || record.direction == Direction::Outbound)
}

fn original_rpc_method(record: &Record) -> Option<&str> {
    let path = record.path.as_deref()?.strip_prefix('/')?;
    let (service, method) = path.split_once('/')?;
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    (path.len() <= LONGEST_RPC_METHOD && is_name(service) && is_name(method)).then_some(path)
}

fn attributes(record: &Record, error: Option<Cow<'static, str>>) -> Vec<KeyValue> {
    let mut list = Attributes(Vec::with_capacity(TYPICAL));
    if record.method.is_some() {
        list.http(record);
    } else {
        list.push("network.transport", "tcp");
        list.count("douane.bytes_in", record.bytes_in);
        list.count("douane.bytes_out", record.bytes_out);
    }
    if record.grpc {
        list.rpc(record);
    }
    list.network(record);
    list.tls(&record.protection);
    list.ours(record);
    list.some("error.type", error);
    list.0
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn http(&mut self, record: &Record) {
        self.push("http.request.method", record.known_method().unwrap_or("_OTHER"));
        if record.known_method().is_none() {
            let original = record.method.as_ref().map(|method| cut(method.as_str()).to_owned());
            self.some("http.request.method_original", original);
        }
        let path = record.path.as_deref().map_or("/", cut);
        self.push("url.scheme", "http");
        self.push("url.path", path.to_owned());
        if record.direction == Direction::Outbound {
            let authority =
                record.authority.as_deref().map_or(record.destination.to_string().into(), Cow::Borrowed);
            self.push("url.full", format!("http://{}{path}", cut(&authority)));
        }
        if record.resends > 0 {
            self.push("http.request.resend_count", i64::from(record.resends));
        }
        if let Some(id) = record.request_id.as_deref() {
            let list = Array::String(vec![id.to_owned().into()]);
            self.push("http.request.header.x-request-id", Value::Array(list));
        }
        self.some("user_agent.original", record.user_agent.as_deref().map(str::to_owned));
        self.some("http.response.status_code", record.status.map(i64::from));
        self.count("http.request.body.size", record.bytes_in);
        self.count("http.response.body.size", record.bytes_out);
        self.some("network.protocol.version", record.protocol_version());
        let overhead = u64::try_from(record.overhead.as_micros()).unwrap_or(u64::MAX);
        self.count("douane.proxy.overhead_us", overhead);
    }

    fn rpc(&mut self, record: &Record) {
        self.push("rpc.system.name", "grpc");
        match (rpc_method(record), original_rpc_method(record)) {
            (Some(method), _) => self.push("rpc.method", method.to_owned()),
            (None, original) => {
                self.push("rpc.method", "_OTHER");
                self.some("rpc.method_original", original.map(str::to_owned));
            }
        }
        self.some("rpc.status_code", record.grpc_status.map(grpc::name));
    }

    fn network(&mut self, record: &Record) {
        let (host, port) = server(record);
        self.push("server.address", host);
        self.push("server.port", i64::from(port));
        if let Some(peer) = record.peer_address {
            self.push("network.peer.address", peer.ip().to_string());
            self.push("network.peer.port", i64::from(peer.port()));
            if record.direction == Direction::Inbound {
                self.push("client.address", peer.ip().to_string());
            }
        }
        if let Some((namespace, name)) = record.service.as_deref().and_then(|service| service.split_once('/'))
        {
            self.push("service.peer.name", name.to_owned());
            self.push("service.peer.namespace", namespace.to_owned());
        }
    }

    fn tls(&mut self, protection: &Protection) {
        self.push("douane.tls", protection.as_str());
        if let Protection::Mtls { version, group, binding } = protection {
            self.push("douane.tls.binding", format!("{binding:016x}"));
            self.push("tls.protocol.name", "tls");
            self.push("tls.protocol.version", version.strip_prefix("TLSv").unwrap_or(version));
            self.push("tls.curve", group.clone());
        }
    }

    fn ours(&mut self, record: &Record) {
        self.some("douane.peer.spiffe_id", record.peer.as_ref().map(ToString::to_string));
        self.some("douane.local.spiffe_id", record.local.as_ref().map(ToString::to_string));
        self.some("douane.authz.decision", record.decision);
        self.some("douane.authz.policy", record.policy.as_deref().map(str::to_owned));
        self.some("douane.refusal", record.refusal);
        self.some("douane.reason", record.reason.as_deref().map(|reason| cut(reason).to_owned()));
        if record.status.is_some() {
            self.push("douane.response_origin", record.answered_by());
        }
    }

    fn push(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.push(key, value);
        }
    }

    fn count(&mut self, key: &'static str, value: u64) {
        self.push(key, i64::try_from(value).unwrap_or(i64::MAX));
    }
}

/// Whom the client asked for, as far as it said; else where it went.
fn server(record: &Record) -> (String, u16) {
    let asked = record.authority.as_deref().and_then(|text| cut(text).parse::<Authority>().ok());
    match asked {
        Some(asked) => {
            let host = asked.host().trim_start_matches('[').trim_end_matches(']').to_owned();
            (host, asked.port_u16().unwrap_or(record.destination.port()))
        }
        None => (record.destination.ip().to_string(), record.destination.port()),
    }
}

const UNIMPLEMENTED: u16 = 12;
// Bytes.
const LONGEST_RPC_METHOD: usize = 256;
// Attributes of a usual span.
const TYPICAL: usize = 28;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::Method;

    use super::*;

    type Case = (Direction, Option<u16>, Option<u16>, Option<&'static str>, Option<&'static str>);

    fn record(direction: Direction) -> Record {
        let mut record = Record::new(direction, "10.77.0.5:8080".parse().unwrap());
        record.method = Some(Method::GET);
        record.path = Some("/orders/42".to_owned());
        record
    }

    fn told(record: &Record) -> SpanData {
        let trace =
            TraceContext { trace_id: 1, parent_id: Some(2), span_id: 3, sampled: true, random: false };
        let lasted = Lasted { from: UNIX_EPOCH, length: Duration::from_millis(5) };
        span(record, &trace, lasted, &InstrumentationScope::default())
    }

    fn attribute(span: &SpanData, key: &str) -> Option<String> {
        span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
    }

    #[test]
    fn the_status_follows_kind_and_code() {
        use Direction::{Inbound, Outbound};
        // direction, HTTP status, gRPC status, refusal -> error.type (`None`: status unset).
        let cases: &[Case] = &[
            (Inbound, Some(200), None, None, None),
            (Outbound, Some(200), None, None, None),
            (Inbound, Some(302), None, None, None),
            (Outbound, Some(101), None, None, None),
            (Inbound, Some(404), None, None, None),
            (Outbound, Some(404), None, None, Some("404")),
            (Inbound, Some(503), None, None, Some("503")),
            (Outbound, Some(500), None, None, Some("500")),
            // Denied by law: the server did its work, the client has an error.
            (Inbound, Some(403), None, Some("denied"), None),
            (Inbound, Some(200), Some(7), Some("denied"), None),
            (Outbound, Some(403), None, None, Some("403")),
            (Outbound, Some(200), Some(7), None, Some("PERMISSION_DENIED")),
            (Outbound, Some(403), None, Some("not_registered"), Some("not_registered")),
            // Failed in the sidecar, with and without an answer, and after a good beginning.
            (Outbound, Some(503), None, Some("connect_refused"), Some("connect_refused")),
            (Inbound, Some(504), None, Some("request_timeout"), Some("request_timeout")),
            (Inbound, Some(200), None, Some("upstream_reset"), Some("upstream_reset")),
            (Inbound, Some(200), Some(14), Some("connect_refused"), Some("connect_refused")),
            (Outbound, None, None, Some("tls_handshake_failed"), Some("tls_handshake_failed")),
            // The client went away.
            (Inbound, None, None, None, None),
            (Outbound, None, None, None, None),
            (Outbound, Some(502), None, Some("client_gone"), None),
            // gRPC: everything but OK is an error to the client, and some codes are one of the server.
            (Outbound, Some(200), Some(0), None, None),
            (Outbound, Some(200), Some(1), None, Some("CANCELLED")),
            (Outbound, Some(200), Some(5), None, Some("NOT_FOUND")),
            (Outbound, Some(200), Some(99), None, Some("99")),
            (Inbound, Some(200), Some(0), None, None),
            (Inbound, Some(200), Some(2), None, Some("UNKNOWN")),
            (Inbound, Some(200), Some(4), None, Some("DEADLINE_EXCEEDED")),
            (Inbound, Some(200), Some(5), None, None),
            (Inbound, Some(200), Some(7), None, None),
            (Inbound, Some(200), Some(12), None, Some("UNIMPLEMENTED")),
            (Inbound, Some(200), Some(13), None, Some("INTERNAL")),
            (Inbound, Some(200), Some(14), None, Some("UNAVAILABLE")),
            (Inbound, Some(200), Some(15), None, Some("DATA_LOSS")),
            (Inbound, Some(200), Some(16), None, None),
        ];
        for case in cases {
            let (direction, status, grpc_status, refusal, error) = *case;
            let mut record = record(direction);
            (record.status, record.grpc_status, record.refusal) = (status, grpc_status, refusal);
            record.grpc = grpc_status.is_some();

            let span = told(&record);

            assert_eq!(matches!(span.status, Status::Error { .. }), error.is_some(), "{case:?}");
            assert_eq!(attribute(&span, "error.type").as_deref(), error, "{case:?}");
            let kind = if direction == Inbound { SpanKind::Server } else { SpanKind::Client };
            assert_eq!(span.span_kind, kind);
        }
    }

    #[test]
    fn a_name_is_the_method_and_never_the_path() {
        for (method, name, reported) in
            [("GET", "GET", "GET"), ("get", "HTTP", "_OTHER"), ("PURGE", "HTTP", "_OTHER")]
        {
            let mut record = record(Direction::Inbound);
            record.method = Some(Method::from_bytes(method.as_bytes()).unwrap());

            let span = told(&record);

            assert_eq!(span.name, name);
            assert_eq!(attribute(&span, "http.request.method").as_deref(), Some(reported));
            let original = (reported == "_OTHER").then_some(method);
            assert_eq!(attribute(&span, "http.request.method_original").as_deref(), original);
        }
    }

    #[test]
    fn a_grpc_call_is_named_by_its_method_if_the_server_knows_it() {
        let known = "shop.v1.Inventory/Reserve";
        for (path, status, name, method) in [
            ("/shop.v1.Inventory/Reserve", 0, known, known),
            ("/shop.v1.Inventory/Reserve", 5, known, known),
            ("/invented/ByAPeer", 12, "grpc", "_OTHER"),
            ("/not a name/x", 0, "grpc", "_OTHER"),
            ("/no-method", 0, "grpc", "_OTHER"),
        ] {
            let mut record = record(Direction::Inbound);
            (record.grpc, record.path, record.grpc_status) = (true, Some(path.to_owned()), Some(status));
            record.status = Some(200);

            let span = told(&record);

            assert_eq!(span.name, name, "{path}");
            assert_eq!(attribute(&span, "rpc.method").as_deref(), Some(method), "{path}");
            assert_eq!(attribute(&span, "rpc.system.name").as_deref(), Some("grpc"));
        }
    }

    #[test]
    fn a_client_span_says_whom_it_asked_and_whom_it_met() {
        let mut record = record(Direction::Outbound);
        record.authority = Some("orders.shop:8080".to_owned());
        record.peer_address = Some("[fd77::5]:8081".parse().unwrap());
        record.service = Some("shop/orders".into());
        record.peer = Some("spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap());
        record.protection =
            Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".into(), binding: 7 };
        record.protocol = "h2";
        record.status = Some(200);
        record.request_id = Some("req-1".into());

        let span = told(&record);

        for (key, value) in [
            ("url.full", "http://orders.shop:8080/orders/42"),
            ("server.address", "orders.shop"),
            ("server.port", "8080"),
            ("network.peer.address", "fd77::5"),
            ("network.peer.port", "8081"),
            ("network.protocol.version", "2"),
            ("service.peer.name", "orders"),
            ("tls.protocol.version", "1.3"),
            ("tls.curve", "X25519MLKEM768"),
            ("douane.tls", "mtls"),
            ("douane.peer.spiffe_id", "spiffe://cluster.local/ns/shop/sa/orders"),
            ("douane.response_origin", "upstream"),
            ("http.request.header.x-request-id", "[\"req-1\"]"),
        ] {
            assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_millis(5));
        assert_eq!(span.parent_span_id, SpanId::from(2));
        assert!(span.parent_span_is_remote);
    }

    #[test]
    fn a_server_span_of_a_refusal_names_the_policy() {
        let mut record = record(Direction::Inbound);
        record.status = Some(403);
        (record.decision, record.refusal) = (Some("deny"), Some("denied"));
        record.policy = Some("shop/orders#rule[0]".into());
        record.peer_address = Some("10.77.0.9:40000".parse().unwrap());
        record.user_agent = Some("curl/8".into());

        let span = told(&record);

        for (key, value) in [
            ("douane.authz.decision", "deny"),
            ("douane.authz.policy", "shop/orders#rule[0]"),
            ("douane.response_origin", "proxy"),
            ("douane.tls", "none"),
            ("client.address", "10.77.0.9"),
            ("user_agent.original", "curl/8"),
            ("server.address", "10.77.0.5"),
            ("url.path", "/orders/42"),
        ] {
            assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(attribute(&span, "url.full"), None);
    }

    #[test]
    fn a_stream_has_bytes_and_no_request() {
        let mut record = Record::new(Direction::Outbound, "10.77.0.5:7000".parse().unwrap());
        (record.bytes_in, record.bytes_out) = (10, u64::MAX);

        let span = told(&record);

        assert_eq!(span.name, "tcp");
        assert_eq!(attribute(&span, "douane.bytes_in").as_deref(), Some("10"));
        assert_eq!(attribute(&span, "http.request.method"), None);
    }
}
