//! What is counted, in Prometheus' form. Names and labels follow OpenTelemetry's conventions where those have one, else
//! `douane_`.
//!
//! Labels are fixed words, names that the control plane gave, or identities that were proven: never a path, a Host, an
//! SNI or anything else that a client may invent. Rooms do not know this registry; they fill an
//! [`crate::telemetry::access::Access`], and the application tells what else there is (certificate, snapshot).

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::{
    budget,
    telemetry::{
        labels::{Decision, DryRun, Flow, OTHER, Outcome, Reason, Refused, Request, Way, way},
        record::{Direction, Lasted, Record},
        series::Series,
        writer::LostLines,
    },
};

/// All metrics of a sidecar.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    server: Series<Request, Histogram>,
    client: Series<Request, Histogram>,
    active: Series<Way, Gauge>,
    decisions: Series<Decision, Counter>,
    dry_runs: Series<DryRun, Counter>,
    refusals: Series<Refused, Counter>,
    opened: Series<Way, Counter>,
    closed: Series<Way, Counter>,
    bytes: Series<Flow, Counter>,
    plaintext: Series<Way, Counter>,
    queued: Series<Way, Counter>,
    retries: Series<Reason, Counter>,
    ejections: Counter,
    pressure: Gauge,
    renewals: Series<Outcome, Counter>,
    spans_dropped: Series<Reason, Counter>,
    pub(crate) spans_exported: Counter,
    pub(crate) exporter_up: Gauge,
    certificate_expiry: Gauge,
    epoch: Gauge<u64, AtomicU64>,
    sequence: Gauge<u64, AtomicU64>,
    held: Gauge<u64, AtomicU64>,
    budget: Gauge<u64, AtomicU64>,
}

/// How a renewal of the certificate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The new certificate is in use.
    Succeeded,
    /// The old one stays in use.
    Failed,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(lost_lines: &LostLines, lost_audit: &LostLines) -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let metrics = Self {
            server: Series::register(
                r,
                "http_server_request_duration_seconds",
                "Requests from peers to the application, from head to last byte",
                histogram,
                Request::other(),
            ),
            client: Series::register(
                r,
                "http_client_request_duration_seconds",
                "Requests of the application, from head to last byte",
                histogram,
                Request::other(),
            ),
            active: Series::register(
                r,
                "douane_active",
                "Requests and streams in progress",
                Gauge::default,
                Way { direction: OTHER },
            ),
            decisions: Series::register(
                r,
                "douane_authz_decisions",
                "Decisions by the law that made them",
                Counter::default,
                Decision { decision: OTHER, policy: Some(OTHER.into()) },
            ),
            dry_runs: Series::register(
                r,
                "douane_dry_run_decisions",
                "What policies in a dry run would have decided",
                Counter::default,
                DryRun { would: OTHER, policy: OTHER.to_owned() },
            ),
            refusals: Series::register(
                r,
                "douane_refusals",
                "Connections, streams and requests that were refused or failed in the sidecar",
                Counter::default,
                Refused { direction: OTHER, reason: OTHER },
            ),
            opened: Series::register(
                r,
                "douane_tcp_connections_opened",
                "Opaque streams that began",
                Counter::default,
                Way { direction: OTHER },
            ),
            closed: Series::register(
                r,
                "douane_tcp_connections_closed",
                "Opaque streams that ended",
                Counter::default,
                Way { direction: OTHER },
            ),
            bytes: Series::register(
                r,
                "douane_tcp_bytes",
                "Bytes of opaque streams that ended, from and to the client",
                Counter::default,
                Flow { direction: OTHER, flow: OTHER },
            ),
            plaintext: Series::register(
                r,
                "douane_plaintext",
                "Connections from peers, and requests and streams to peers, without mutual TLS, as the mesh permits",
                Counter::default,
                Way { direction: OTHER },
            ),
            queued: Series::register(
                r,
                "douane_queued",
                "Requests that had to wait for a place among those in progress",
                Counter::default,
                Way { direction: OTHER },
            ),
            retries: Series::register(
                r,
                "douane_retries",
                "Requests that were sent again, and why that was safe",
                Counter::default,
                Reason { reason: OTHER },
            ),
            ejections: Counter::default(),
            pressure: Gauge::default(),
            renewals: Series::register(
                r,
                "douane_certificate_renewals",
                "Renewals of the workload's certificate",
                Counter::default,
                Outcome { result: OTHER },
            ),
            spans_dropped: Series::register(
                r,
                "douane_otel_spans_dropped",
                "Spans that no collector received",
                Counter::default,
                Reason { reason: OTHER },
            ),
            spans_exported: Counter::default(),
            exporter_up: Gauge::default(),
            certificate_expiry: Gauge::default(),
            epoch: Gauge::default(),
            sequence: Gauge::default(),
            held: Gauge::default(),
            budget: Gauge::default(),
            registry: Registry::default(),
        };
        metrics.register_plain(registry, lost_lines, lost_audit)
    }

    /// The text that `/metrics` answers with; its type is [`Self::CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        self.held.set(budget::held() as u64);
        self.budget.set(budget::limit() as u64);
        let mut text = String::new();
        match text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing into memory fails only if a metric cannot say itself; a scrape without end mark is an error.
            Err(std::fmt::Error) => String::new(),
        }
    }

    /// Of [`Self::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// A certificate came into use, or could not be renewed.
    pub fn renewed(&self, renewal: Renewal) {
        let result = match renewal {
            Renewal::Succeeded => "succeeded",
            Renewal::Failed => "failed",
        };
        self.renewals.of(&Outcome { result }, Counter::inc);
    }

    /// When the certificate in use ends, seconds since 1970.
    pub fn certificate_expires(&self, not_after: i64) {
        self.certificate_expiry.set(not_after);
    }

    /// The snapshot in use.
    pub fn snapshot(&self, epoch: u64, sequence: u64) {
        self.epoch.set(epoch);
        self.sequence.set(sequence);
    }

    pub(crate) fn dropped_spans(&self, reason: &'static str, count: usize) {
        self.spans_dropped.of(&Reason { reason }, |dropped| dropped.inc_by(count as u64));
    }

    pub(crate) fn began(&self, direction: Direction) {
        self.active.of(&way(direction), Gauge::inc);
    }

    pub(crate) fn discarded(&self, direction: Direction) {
        self.active.of(&way(direction), Gauge::dec);
    }

    pub(crate) fn in_plaintext(&self, direction: Direction) {
        self.plaintext.of(&way(direction), Counter::inc);
    }

    pub(crate) fn queued(&self, direction: Direction) {
        self.queued.of(&way(direction), Counter::inc);
    }

    pub(crate) fn retried(&self, reason: &'static str) {
        self.retries.of(&Reason { reason }, Counter::inc);
    }

    pub(crate) fn ejected(&self) {
        self.ejections.inc();
    }

    /// How short memory is: 0 calm, 1 tight, 2 high, 3 full.
    pub fn pressure(&self, level: i64) {
        self.pressure.set(level);
    }

    /// Requests and streams in progress.
    #[must_use]
    pub fn in_progress(&self) -> i64 {
        let of = |direction| self.active.of(&way(direction), |active| active.get());
        of(Direction::Inbound) + of(Direction::Outbound)
    }

    pub(crate) fn opened(&self, direction: Direction) {
        self.opened.of(&way(direction), Counter::inc);
    }

    pub(crate) fn ended(&self, record: &Record, lasted: Lasted) {
        let Record { direction, decision, refusal, .. } = record;
        self.active.of(&way(*direction), Gauge::dec);
        if let Some(decision) = decision {
            let policy = record.policy.clone();
            self.decisions.of(&Decision { decision, policy }, Counter::inc);
        }
        if let Some(dry_run) = &record.dry_run {
            self.dry_runs.of(&DryRun::of(dry_run), Counter::inc);
        }
        if let Some(reason) = refusal {
            let labels = Refused { direction: direction.as_str(), reason };
            self.refusals.of(&labels, Counter::inc);
        }
        if record.method.is_some() {
            let durations = match direction {
                Direction::Inbound => &self.server,
                Direction::Outbound => &self.client,
            };
            durations.of(&Request::of(record), |durations| durations.observe(lasted.length.as_secs_f64()));
        }
    }

    pub(crate) fn closed(&self, record: &Record) {
        let direction = record.direction.as_str();
        self.closed.of(&way(record.direction), Counter::inc);
        for (flow, count) in [("received", record.bytes_in), ("sent", record.bytes_out)] {
            self.bytes.of(&Flow { direction, flow }, |bytes| bytes.inc_by(count));
        }
    }

    fn register_plain(
        mut self,
        mut registry: Registry,
        lost_lines: &LostLines,
        lost_audit: &LostLines,
    ) -> Self {
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let r = &mut registry;
        r.register("process_start_time_seconds", "When this process began, seconds since 1970", started);
        r.register(
            "douane_build",
            "What this sidecar is",
            Info::new([("version", env!("CARGO_PKG_VERSION"))].to_vec()),
        );
        r.register(
            "douane_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, seconds since 1970",
            self.certificate_expiry.clone(),
        );
        r.register(
            "douane_ejections",
            "Endpoints left out for a while because they failed again and again",
            self.ejections.clone(),
        );
        r.register(
            "douane_memory_pressure",
            "How short memory is: 0 calm, 1 tight (85 %), 2 no new requests (90 %), 3 no new connections (95 %)",
            self.pressure.clone(),
        );
        r.register("douane_snapshot_epoch", "Which history the sequence counts in", self.epoch.clone());
        r.register("douane_snapshot_sequence", "The newest delta in use", self.sequence.clone());
        r.register("douane_held_bytes", "What peers and applications make us hold", self.held.clone());
        r.register("douane_byte_budget_bytes", "What it should not exceed", self.budget.clone());
        r.register(
            "douane_otel_spans_exported",
            "Spans that the collector received",
            self.spans_exported.clone(),
        );
        r.register("douane_otel_exporter_up", "Whether the last export succeeded", self.exporter_up.clone());
        r.register(
            "douane_log_lines_dropped",
            "Log lines that the output was too slow for, or refused",
            lost_lines.0.clone(),
        );
        r.register(
            "douane_audit_lines_dropped",
            "Lines of the audit log that its file was too slow for, or refused",
            lost_audit.0.clone(),
        );
        self.registry = registry;
        self
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

// Seconds: those of OpenTelemetry's `http.server.request.duration`, so that dashboards fit.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::telemetry::series::MOST_SERIES;

    const LASTED: Lasted = Lasted { from: UNIX_EPOCH, length: Duration::from_millis(30) };

    fn metrics() -> Metrics {
        Metrics::new(&LostLines::default(), &LostLines::default())
    }

    fn request(direction: Direction) -> Record {
        let mut record = Record::new(direction, "10.77.0.5:8080".parse().unwrap());
        record.method = Some(Method::GET);
        record.protocol = "http/1.1";
        record.status = Some(200);
        record
    }

    #[test]
    fn a_request_is_measured_with_its_proven_peer() {
        let metrics = metrics();
        let mut record = request(Direction::Inbound);
        record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        (record.decision, record.policy) = (Some("allow"), Some("shop/orders#rule[0]".into()));
        record.path = Some("/secret-path".to_owned());
        record.authority = Some("secret-host".to_owned());

        metrics.began(Direction::Inbound);
        metrics.ended(&record, LASTED);

        let text = metrics.encode();
        for line in [
            "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\",\
             error_type=\"\",network_protocol_version=\"http/1.1\",tls=\"none\",peer_namespace=\"shop\",\
             peer_workload=\"web\",service=\"\"} 1",
            "douane_authz_decisions_total{decision=\"allow\",policy=\"shop/orders#rule[0]\"} 1",
            "douane_active{direction=\"inbound\"} 0",
            "douane_build_info{version=",
            "douane_log_lines_dropped_total 0",
        ] {
            assert!(text.contains(line), "{line}\nis missing in\n{text}");
        }
        assert!(!text.contains("secret"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_stream_is_counted_with_its_bytes_and_a_refusal_with_its_reason() {
        let metrics = metrics();
        let mut record = Record::new(Direction::Outbound, "10.77.0.5:7000".parse().unwrap());
        (record.bytes_in, record.bytes_out, record.refusal) = (5, 7, Some("policy_changed"));

        metrics.opened(Direction::Outbound);
        metrics.ended(&record, LASTED);
        metrics.closed(&record);

        let text = metrics.encode();
        for line in [
            "douane_tcp_connections_opened_total{direction=\"outbound\"} 1",
            "douane_tcp_connections_closed_total{direction=\"outbound\"} 1",
            "douane_tcp_bytes_total{direction=\"outbound\",flow=\"received\"} 5",
            "douane_tcp_bytes_total{direction=\"outbound\",flow=\"sent\"} 7",
            "douane_refusals_total{direction=\"outbound\",reason=\"policy_changed\"} 1",
        ] {
            assert!(text.contains(line), "{line}\nis missing in\n{text}");
        }
        assert!(!text.contains("http_client_request_duration_seconds_count{"));
    }

    #[test]
    fn series_past_the_cap_are_counted_as_other() {
        let metrics = metrics();

        for number in 0..2 * MOST_SERIES {
            let mut record = request(Direction::Inbound);
            record.method = Some(Method::from_bytes(format!("M{number}").as_bytes()).unwrap());
            record.peer = Some(format!("spiffe://cluster.local/ns/shop/sa/p{number}").parse().unwrap());
            metrics.ended(&record, LASTED);
        }

        let text = metrics.encode();
        let series = text.matches("http_server_request_duration_seconds_count{").count();
        assert_eq!(series, MOST_SERIES + 1);
        assert!(text.contains("peer_workload=\"other\",service=\"\"} 500"), "{text}");
        assert!(!text.contains("\"M1\""), "a method that a client invented is no label");
    }

    #[test]
    fn state_is_told_by_the_application() {
        let metrics = metrics();

        metrics.certificate_expires(1_900_000_000);
        metrics.renewed(Renewal::Succeeded);
        metrics.snapshot(3, 14);
        metrics.dropped_spans("queue_full", 2);

        let text = metrics.encode();
        for line in [
            "douane_certificate_expiry_timestamp_seconds 1900000000",
            "douane_certificate_renewals_total{result=\"succeeded\"} 1",
            "douane_snapshot_epoch 3",
            "douane_snapshot_sequence 14",
            "douane_otel_spans_dropped_total{reason=\"queue_full\"} 2",
        ] {
            assert!(text.contains(line), "{line}\nis missing in\n{text}");
        }
    }
}
