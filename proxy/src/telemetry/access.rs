//! One [`Access`] for each request or stream: created when it begins, filled on its way, told once when it is dropped at
//! the last byte. Log line, metrics and span come from the same record at the same moment, so they cannot disagree.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::InstrumentationScope;

pub(crate) use crate::telemetry::record::policy_and_rule;
pub use crate::telemetry::record::{Direction, Protection, Record};
use crate::{
    config::{LineFormat, tracing::Tracing},
    limits::places::Place,
    telemetry::{
        audit::{audit_line, is_audited},
        edges::{Edge, Edges},
        envoy::envoy_line,
        flood::Flood,
        form::Form,
        line::{access_line, who},
        metrics::Metrics,
        origin::Origin,
        queue::SpanQueue,
        record::Lasted,
        span::span,
        tracer::{Begun, Caller, Forwarded, Tracer},
        writer::{LineWriter, LostLines},
    },
};

/// The guard around a [`Record`].
#[derive(Debug)]
pub struct Access {
    /// What is known so far.
    pub record: Record,
    /// Its place among those in progress: free again with the record's end.
    pub place: Option<Place>,
    from: SystemTime,
    since: Instant,
    // Since it was opened as a stream.
    opened: Option<Rc<Edge>>,
    discarded: bool,
    // Among the requests that the application has in hand.
    in_hand: bool,
    telemetry: Rc<Telemetry>,
}

/// Where records end: log, metrics, spans.
#[derive(Debug)]
pub struct Telemetry {
    /// What is counted; `metrics.encode(...)` is the body of `/metrics`.
    pub metrics: Metrics,
    /// Finished spans; `None` where no collector is configured.
    pub(crate) spans: Option<SpanQueue>,
    /// Who talks to whom.
    pub(crate) edges: Edges,
    origin: RefCell<Origin>,
    // The same as it stands on every line.
    who: RefCell<Vec<u8>>,
    logs: Logs,
    flood: RefCell<Flood>,
    // Where a line is put together; kept for the next one.
    line: RefCell<Vec<u8>>,
    scope: InstrumentationScope,
    tracer: Tracer,
    // The application was said to forward nothing.
    scolded: Cell<bool>,
}

/// Where lines are written; `None` where they are not.
#[derive(Debug, Default)]
pub struct Logs {
    /// How the access log tells.
    pub form: Form,
    /// A line for each request and stream.
    pub access: Option<LineWriter>,
    /// A line for each that was denied, or that an AUDIT policy wants told.
    pub audit: Option<LineWriter>,
}

/// Are spans made at all?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spans {
    /// A task runs that sends them ([`crate::telemetry::otlp::run`]).
    Export,
    /// No collector is configured.
    Discard,
}

impl Telemetry {
    /// Records end in `logs`, in `metrics` and, with [`Spans::Export`], in a queue of spans.
    #[must_use]
    pub fn new(origin: Origin, logs: Logs, metrics: Metrics, spans: Spans, tracing: Tracing) -> Rc<Self> {
        metrics.named(&origin.namespace, &origin.service);
        Rc::new(Self {
            metrics,
            spans: (spans == Spans::Export).then(SpanQueue::default),
            edges: Edges::default(),
            who: RefCell::new(who(&origin)),
            origin: RefCell::new(origin),
            logs,
            flood: RefCell::default(),
            line: RefCell::default(),
            scope: InstrumentationScope::builder("douane.proxy")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            tracer: Tracer::new(tracing),
            scolded: Cell::default(),
        })
    }

    /// Begins the record of a request or stream.
    #[must_use]
    pub fn begin(self: &Rc<Self>, direction: Direction, destination: SocketAddr) -> Access {
        self.metrics.began(direction);
        Access {
            record: Record::new(direction, destination),
            place: None,
            from: SystemTime::now(),
            since: Instant::now(),
            opened: None,
            discarded: false,
            in_hand: false,
            telemetry: Rc::clone(self),
        }
    }

    /// The same with a span that continues the trace of `headers`, as far as their `caller` is believed; what is not
    /// believed is taken out of them.
    #[must_use]
    pub fn begin_traced(
        self: &Rc<Self>,
        direction: Direction,
        destination: SocketAddr,
        headers: &mut HeaderMap,
        caller: Caller<'_>,
    ) -> Access {
        let mut access = self.begin(direction, destination);
        let Begun { trace, link, forwarded } = self.tracer.begin(headers, caller);
        if let Some(forwarded) = forwarded {
            self.metrics.spans().forwarded(forwarded);
            self.scold(forwarded);
        }
        if let (Direction::Inbound, Some(trace)) = (direction, &trace) {
            self.tracer.enters(trace);
            access.in_hand = true;
        }
        (access.record.trace, access.record.link) = (trace, link);
        access
    }

    /// The control plane says what the workload is called; what the operator said stays.
    pub fn name_service(&self, service: &str) {
        let mut origin = self.origin.borrow_mut();
        if origin.guessed && *origin.service != *service {
            origin.service = service.into();
            *self.who.borrow_mut() = who(&origin);
            self.metrics.named(&origin.namespace, &origin.service);
        }
    }

    /// Who tells.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin.borrow().clone()
    }

    /// Waits until the logs are written, each for `limit` at most. Blocks: for the end of the process.
    pub fn flush_log(&self, limit: Duration) {
        for log in [&self.logs.access, &self.logs.audit].into_iter().flatten() {
            log.flush(limit);
        }
    }

    // Once: the metric tells how often.
    fn scold(&self, forwarded: Forwarded) {
        if forwarded == Forwarded::No && !self.scolded.replace(true) {
            tracing::warn!(
                service = &*self.origin.borrow().service,
                "the application sends a request without trace headers while it answers one: its traces end here; let \
                 it copy traceparent, tracestate and baggage from what it is asked to what it asks, or run an \
                 OpenTelemetry SDK (said once; douane_trace_propagation_total counts)"
            );
        }
    }

    fn end(&self, record: &Record, lasted: Lasted) {
        self.metrics.ended(record, lasted);
        self.log(record, lasted);
        if let Some(spans) = &self.spans
            && let Some(trace) = record.trace.as_ref().filter(|trace| trace.sampled)
            && !spans.push(|| span(record, trace, lasted, &self.scope))
        {
            self.metrics.spans().dropped("queue_full", 1);
        }
    }

    fn log(&self, record: &Record, lasted: Lasted) {
        let Logs { access, audit, form } = &self.logs;
        let access = access.as_ref().filter(|_| form.keeps(record));
        let audit = audit.as_ref().filter(|_| is_audited(record));
        if access.is_none() && audit.is_none() {
            return;
        }
        let Some(suppressed) = self.admits(record) else { return };
        let (who, mut line) = (self.who.borrow(), self.line.borrow_mut());
        if let Some(access) = access {
            match form.format {
                LineFormat::Json => access_line(&mut line, &who, record, lasted, suppressed),
                LineFormat::Envoy => envoy_line(&mut line, record, lasted),
            }
            access.send(&line);
            line.clear();
        }
        if let Some(audit) = audit {
            audit_line(&mut line, &who, record, lasted, suppressed);
            audit.send(&line);
            line.clear();
        }
    }

    // Whoever has proven an identity has a line for each request; strangers share some.
    fn admits(&self, record: &Record) -> Option<u64> {
        match record.refusal {
            Some(refusal) if record.peer.is_none() && record.method.is_none() => {
                self.flood.borrow_mut().admits(refusal, Instant::now())
            }
            _ => Some(0),
        }
    }
}

/// Counts, but neither logs nor traces.
impl Default for Telemetry {
    fn default() -> Self {
        Self {
            metrics: Metrics::new(&LostLines::default(), &LostLines::default()),
            spans: None,
            edges: Edges::default(),
            origin: RefCell::default(),
            who: RefCell::default(),
            logs: Logs::default(),
            flood: RefCell::default(),
            line: RefCell::default(),
            scope: InstrumentationScope::default(),
            tracer: Tracer::new(Tracing::default()),
            scolded: Cell::default(),
        }
    }
}

impl Access {
    /// When it began, seconds since 1970.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// It has to wait for its place.
    pub fn queued(&self) {
        self.telemetry.metrics.queued(self.record.direction);
    }

    /// Its token is about this principal, `issuer/subject`: logs name it as the operator configured, or not at all.
    pub fn is_of_user(&mut self, principal: &str) {
        self.record.user = self.telemetry.logs.form.users.as_ref().map(|users| users.name(principal));
    }

    /// An opaque stream is open; without this it counts as opened when it ends. Its end is counted by itself.
    pub fn opened(&mut self) {
        if self.opened.is_none() {
            self.opened = Some(self.telemetry.edges.opened(&self.record));
            self.telemetry.metrics.opened(self.record.direction);
        }
    }

    /// Nothing came of it, and nothing is told of it: a stream that was opened to hear who speaks first, and that no byte
    /// has used.
    pub fn discard(&mut self) {
        self.discarded = true;
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if let (true, Some(trace)) = (self.in_hand, &self.record.trace) {
            self.telemetry.tracer.leaves(trace);
        }
        if self.discarded && self.opened.is_none() {
            return self.telemetry.metrics.discarded(self.record.direction);
        }
        // A stream that carried something, or was not refused, was open.
        let Record { method, refusal, bytes_in, bytes_out, .. } = &self.record;
        if method.is_none() && (refusal.is_none() || bytes_in + bytes_out > 0) {
            self.opened();
        }
        let lasted = Lasted { from: self.from, length: self.since.elapsed() };
        self.telemetry.end(&self.record, lasted);
        self.telemetry.edges.ended(&self.record, lasted.length, self.opened.as_deref());
        if self.opened.is_some() {
            self.telemetry.metrics.closed(&self.record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::telemetry::{metrics::Exposition, user::Users};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn telemetry() -> (Rc<Telemetry>, Kept) {
        let (kept, lost) = (Kept::default(), LostLines::default());
        let writer = LineWriter::new(kept.clone(), lost.clone()).unwrap();
        let (metrics, logs) =
            (Metrics::new(&lost, &LostLines::default()), Logs { access: Some(writer), ..Logs::default() });
        (Telemetry::new(Origin::default(), logs, metrics, Spans::Discard, Tracing::default()), kept)
    }

    fn begin(telemetry: &Rc<Telemetry>) -> Access {
        telemetry.begin(Direction::Inbound, "10.77.0.5:7000".parse().unwrap())
    }

    fn lines(telemetry: &Telemetry, kept: &Kept) -> Vec<serde_json::Value> {
        telemetry.flush_log(Duration::from_secs(5));
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn told_by(form: Form) -> serde_json::Value {
        let (kept, lost) = (Kept::default(), LostLines::default());
        let writer = LineWriter::new(kept.clone(), lost.clone()).unwrap();
        let logs = Logs { access: Some(writer.clone()), audit: Some(writer), form };
        let telemetry = Telemetry::new(
            Origin::default(),
            logs,
            Metrics::new(&lost, &lost),
            Spans::Discard,
            Tracing::default(),
        );
        let mut access = begin(&telemetry);
        access.is_of_user("https://login/ann");
        (access.record.denied, access.record.refusal) = (true, Some("denied"));
        drop(access);
        let lines = lines(&telemetry, &kept);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert_eq!(lines[0]["user"], lines[1]["user"]);
        assert!(!lines.iter().any(|line| line.to_string().contains("ann")), "{lines:#?}");
        lines[0]["user"].clone()
    }

    #[test]
    fn a_user_is_named_by_a_hash_or_not_at_all() {
        assert!(told_by(Form::default()).is_null());
        let users = Some(Users::of_key(b"a key of the test"));
        assert_eq!(told_by(Form { users, ..Form::default() }).as_str().map(str::len), Some(16));
    }

    #[test]
    fn an_access_is_told_once_when_its_last_owner_lets_go() {
        let (telemetry, kept) = telemetry();
        let access = Rc::new(RefCell::new(begin(&telemetry)));

        let other = Rc::clone(&access);
        access.borrow_mut().record.bytes_in = 3;
        drop(access);
        assert!(lines(&telemetry, &kept).is_empty());
        other.borrow_mut().record.bytes_out = 4;
        drop(other);

        let lines = lines(&telemetry, &kept);
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["bytes_in"], &lines[0]["bytes_out"]), (&3.into(), &4.into()));
    }

    #[test]
    fn a_stream_that_nothing_came_of_is_not_told() {
        let (telemetry, kept) = telemetry();

        begin(&telemetry).discard();

        assert!(lines(&telemetry, &kept).is_empty());
        assert!(
            telemetry
                .metrics
                .encode(Exposition::OpenMetrics)
                .contains("douane_active{direction=\"inbound\"} 0")
        );
    }

    #[test]
    fn a_stream_that_was_cut_was_open_and_a_refused_one_was_not() {
        let (telemetry, _kept) = telemetry();

        begin(&telemetry).record.refusal = Some("plaintext");
        let mut cut = begin(&telemetry);
        (cut.record.refusal, cut.record.bytes_out) = (Some("denied"), 9);
        drop(cut);
        let mut open = begin(&telemetry);
        open.opened();
        open.opened();

        let text = telemetry.metrics.encode(Exposition::OpenMetrics);
        for line in [
            "douane_tcp_connections_opened_total{direction=\"inbound\"} 2",
            "douane_tcp_connections_closed_total{direction=\"inbound\"} 1",
            "douane_active{direction=\"inbound\"} 1",
        ] {
            assert!(text.contains(line), "{line}\nis missing in\n{text}");
        }
    }

    #[test]
    fn strangers_who_are_refused_share_few_lines_and_proven_peers_have_their_own() {
        let (telemetry, kept) = telemetry();

        for _ in 0..1000 {
            begin(&telemetry).record.refusal = Some("plaintext");
        }
        let strangers = lines(&telemetry, &kept).len();
        for _ in 0..100 {
            let mut access = begin(&telemetry);
            access.record.refusal = Some("denied");
            access.record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        }
        let peers = lines(&telemetry, &kept).len() - strangers;

        // The test may see more than one second.
        assert!((20..200).contains(&strangers), "{strangers}");
        assert_eq!(peers, 100);
    }
}
