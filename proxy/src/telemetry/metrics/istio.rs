//! Istio's standard metrics, so that dashboards and tools made for them work unchanged. The same events as under our own
//! names; what a sidecar of ours does not know of its peer (its version, its Deployment) is `unknown`, and a peer's workload
//! is named by its service account.

use std::cell::RefCell;

use douane_proto::id::WorkloadId;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, histogram::Histogram},
};

use crate::telemetry::{
    flags,
    metrics::{
        labels::{OTHER, registered},
        series::{Series, Shelf},
    },
    record::{Direction, Lasted, Protection, Record},
};

#[derive(Debug)]
pub(super) struct Istio {
    own: RefCell<Workload>,
    requests: Series<Request, Counter>,
    durations: Series<Request, Histogram>,
    request_bytes: Series<Request, Histogram>,
    response_bytes: Series<Request, Histogram>,
    opened: Series<Stream, Counter>,
    closed: Series<Stream, Counter>,
    received: Series<Stream, Counter>,
    sent: Series<Stream, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Workload {
    name: String,
    namespace: String,
    principal: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Hop {
    reporter: &'static str,
    source_workload: String,
    source_canonical_service: String,
    source_workload_namespace: String,
    source_principal: String,
    source_app: &'static str,
    source_version: &'static str,
    source_canonical_revision: &'static str,
    source_cluster: &'static str,
    destination_workload: String,
    destination_canonical_service: String,
    destination_workload_namespace: String,
    destination_principal: String,
    destination_app: &'static str,
    destination_version: &'static str,
    destination_canonical_revision: &'static str,
    destination_cluster: &'static str,
    destination_service: String,
    destination_service_name: String,
    destination_service_namespace: String,
    request_protocol: &'static str,
    connection_security_policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    #[prometheus(flatten)]
    hop: Hop,
    response_code: u16,
    grpc_response_status: Option<u16>,
    response_flags: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    #[prometheus(flatten)]
    hop: Hop,
    response_flags: &'static str,
}

impl Istio {
    pub(super) fn register(shelf: &mut Shelf<'_>) -> Self {
        Self {
            own: RefCell::default(),
            requests: Series::register(
                shelf,
                "istio_requests",
                "Requests",
                Counter::default,
                Request::other(),
            ),
            durations: Series::register(
                shelf,
                "istio_request_duration_milliseconds",
                "How long requests lasted",
                histogram,
                Request::other(),
            ),
            request_bytes: Series::register(
                shelf,
                "istio_request_bytes",
                "Sizes of the bodies of requests",
                histogram,
                Request::other(),
            ),
            response_bytes: Series::register(
                shelf,
                "istio_response_bytes",
                "Sizes of the bodies of answers",
                histogram,
                Request::other(),
            ),
            opened: Series::register(
                shelf,
                "istio_tcp_connections_opened",
                "Opaque streams that ended, counted as opened",
                Counter::default,
                Stream::other(),
            ),
            closed: Series::register(
                shelf,
                "istio_tcp_connections_closed",
                "Opaque streams that ended",
                Counter::default,
                Stream::other(),
            ),
            received: Series::register(
                shelf,
                "istio_tcp_received_bytes",
                "Bytes from clients",
                Counter::default,
                Stream::other(),
            ),
            sent: Series::register(
                shelf,
                "istio_tcp_sent_bytes",
                "Bytes to clients",
                Counter::default,
                Stream::other(),
            ),
        }
    }

    pub(super) fn named(&self, namespace: &str, service: &str) {
        let mut own = self.own.borrow_mut();
        service.clone_into(&mut own.name);
        namespace.clone_into(&mut own.namespace);
    }

    pub(super) fn ended(&self, record: &Record, lasted: Lasted) {
        if record.method.is_none() {
            return;
        }
        let labels = Request {
            hop: self.hop(record, if record.grpc { "grpc" } else { "http" }),
            // As Envoy has it where no answer was sent.
            response_code: record.status.map(registered).unwrap_or_default(),
            // UNKNOWN for what no list has: a server may invent any.
            grpc_response_status: record.grpc_status.map(|code| if code > LAST_GRPC { 2 } else { code }),
            response_flags: flags::of(record),
        };
        self.requests.of(&labels, Counter::inc);
        self.durations.of(&labels, |durations| durations.observe(lasted.length.as_secs_f64() * 1000.0));
        #[expect(clippy::cast_precision_loss, reason = "a bucket is found, nothing is summed up to the byte")]
        for (sizes, bytes) in
            [(&self.request_bytes, record.bytes_in as f64), (&self.response_bytes, record.bytes_out as f64)]
        {
            sizes.of(&labels, |sizes| sizes.observe(bytes));
        }
    }

    pub(super) fn closed(&self, record: &Record) {
        let labels = Stream { hop: self.hop(record, "tcp"), response_flags: flags::of(record) };
        self.opened.of(&labels, Counter::inc);
        self.closed.of(&labels, Counter::inc);
        self.received.of(&labels, |bytes| bytes.inc_by(record.bytes_in));
        self.sent.of(&labels, |bytes| bytes.inc_by(record.bytes_out));
    }

    pub(super) fn sweep(&self) {
        self.requests.sweep();
        for sizes in [&self.durations, &self.request_bytes, &self.response_bytes] {
            sizes.sweep();
        }
        for counts in [&self.opened, &self.closed, &self.received, &self.sent] {
            counts.sweep();
        }
    }

    fn hop(&self, record: &Record, request_protocol: &'static str) -> Hop {
        let principal = record.local.as_ref().map_or_else(|| UNKNOWN.to_owned(), ToString::to_string);
        let own = Workload { principal, ..self.own.borrow().clone() };
        let peer = Workload::of(record.peer.as_ref());
        let (reporter, source, destination, security) = match (record.direction, &record.protection) {
            (Direction::Inbound, Protection::Mtls { .. }) => ("destination", peer, own, "mutual_tls"),
            (Direction::Inbound, Protection::None) => ("destination", peer, own, "none"),
            // A source's sidecar does not vouch for the hop.
            (Direction::Outbound, _) => ("source", own, peer, UNKNOWN),
        };
        let service = match (&record.service, record.direction) {
            (Some(service), _) => service.split_once('/').unwrap_or((UNKNOWN, service)),
            (None, Direction::Inbound) => (destination.namespace.as_str(), destination.name.as_str()),
            (None, Direction::Outbound) => (UNKNOWN, UNKNOWN),
        };
        let (namespace, name) = (service.0.to_owned(), service.1.to_owned());
        Hop {
            reporter,
            source_canonical_service: source.name.clone(),
            source_workload: source.name,
            source_workload_namespace: source.namespace,
            source_principal: source.principal,
            source_app: UNKNOWN,
            source_version: UNKNOWN,
            source_canonical_revision: "latest",
            source_cluster: CLUSTER,
            destination_canonical_service: destination.name.clone(),
            destination_workload: destination.name,
            destination_workload_namespace: destination.namespace,
            destination_principal: destination.principal,
            destination_app: UNKNOWN,
            destination_version: UNKNOWN,
            destination_canonical_revision: "latest",
            destination_cluster: CLUSTER,
            destination_service: if name == UNKNOWN {
                UNKNOWN.to_owned()
            } else {
                format!("{name}.{namespace}.svc.cluster.local")
            },
            destination_service_name: name,
            destination_service_namespace: namespace,
            request_protocol,
            connection_security_policy: security,
        }
    }
}

impl Workload {
    fn of(id: Option<&WorkloadId>) -> Self {
        let [name, namespace, principal] = match id {
            Some(id) => [id.service_account().to_owned(), id.namespace().to_owned(), id.to_string()],
            None => [UNKNOWN.to_owned(), UNKNOWN.to_owned(), UNKNOWN.to_owned()],
        };
        Self { name, namespace, principal }
    }
}

impl Request {
    fn other() -> Self {
        Self { hop: Hop::other(), response_code: 0, grpc_response_status: None, response_flags: OTHER }
    }
}

impl Stream {
    fn other() -> Self {
        Self { hop: Hop::other(), response_flags: OTHER }
    }
}

impl Hop {
    fn other() -> Self {
        let other = || OTHER.to_owned();
        Self {
            reporter: OTHER,
            source_workload: other(),
            source_canonical_service: other(),
            source_workload_namespace: other(),
            source_principal: other(),
            source_app: OTHER,
            source_version: OTHER,
            source_canonical_revision: OTHER,
            source_cluster: OTHER,
            destination_workload: other(),
            destination_canonical_service: other(),
            destination_workload_namespace: other(),
            destination_principal: other(),
            destination_app: OTHER,
            destination_version: OTHER,
            destination_canonical_revision: OTHER,
            destination_cluster: OTHER,
            destination_service: other(),
            destination_service_name: other(),
            destination_service_namespace: other(),
            request_protocol: OTHER,
            connection_security_policy: OTHER,
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

const UNKNOWN: &str = "unknown";
// UNAUTHENTICATED.
const LAST_GRPC: u16 = 16;
// What Istio calls the only cluster.
const CLUSTER: &str = "Kubernetes";
// Envoy's own, which Istio uses for milliseconds and bytes alike.
const BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    const LASTED: Lasted = Lasted { from: UNIX_EPOCH, length: Duration::from_millis(30) };

    fn told(records: &[Record]) -> String {
        let (mut registry, overflow) = (Registry::default(), Counter::default());
        let istio = Istio::register(&mut Shelf { registry: &mut registry, overflow: &overflow });
        istio.named("shop", "orders");
        for record in records {
            istio.ended(record, LASTED);
            if record.method.is_none() {
                istio.closed(record);
            }
        }
        let mut told = String::new();
        text::encode(&mut told, &registry).unwrap();
        told
    }

    #[test]
    fn a_request_is_told_as_istio_tells_it() {
        let mut record = Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
        (record.method, record.status) = (Some(http::Method::GET), Some(403));
        record.local = Some("spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap());
        record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        record.protection = Protection::Mtls { version: "TLSv1.3", group: "X25519".into(), binding: 7 };
        record.refusal = Some("denied");

        let text = told(&[record]);

        let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
        for label in [
            "reporter=\"destination\"",
            "source_workload=\"web\"",
            "source_workload_namespace=\"shop\"",
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"",
            "destination_workload=\"orders\"",
            "destination_service=\"orders.shop.svc.cluster.local\"",
            "destination_service_name=\"orders\"",
            "request_protocol=\"http\"",
            "response_code=\"403\"",
            "response_flags=\"UAEX\"",
            "connection_security_policy=\"mutual_tls\"",
        ] {
            assert!(line.contains(label), "{label} is missing in {line}");
        }
        assert!(text.contains("istio_request_duration_milliseconds_sum{"), "{text}");
        assert!(text.lines().any(|line| line.contains("le=\"50.0\"") && line.ends_with(" 1")), "{text}");
    }

    #[test]
    fn a_stream_of_the_application_is_told_by_its_service() {
        let mut record = Record::new(Direction::Outbound, "10.77.0.5:7000".parse().unwrap());
        (record.bytes_in, record.bytes_out, record.service) = (5, 7, Some("shop/ledger".into()));

        let text = told(&[record]);

        for (name, value) in [("istio_tcp_received_bytes_total", 5), ("istio_tcp_sent_bytes_total", 7)] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(
                line.contains("reporter=\"source\"") && line.contains("source_workload=\"orders\""),
                "{line}"
            );
            assert!(line.contains("destination_service=\"ledger.shop.svc.cluster.local\""), "{line}");
            assert!(line.contains("connection_security_policy=\"unknown\""), "{line}");
            assert!(line.ends_with(&format!(" {value}")), "{line}");
        }
    }
}
