//! One [`Access`] for each request or stream: created when it begins, filled on its way, told once when it is dropped at
//! the last byte. Log line, metrics and span come from the same record at the same moment, so they cannot disagree.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    mem,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, header};
use opentelemetry::InstrumentationScope;

pub(crate) use crate::telemetry::record::policy_and_rule;
pub use crate::telemetry::record::{Direction, Protection, Record};
use crate::{
    config::{LineFormat, export::Queue, tracing::Tracing},
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
        outcome::Outcome,
        queue::SpanQueue,
        record::Lasted,
        request_id,
        retention::{Call, Fate, Retention},
        sightings::Sightings,
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
    // Since when this sidecar has it in hand.
    in_our_hands: Option<Instant>,
    // Since it was opened as a stream.
    opened: Option<Rc<Edge>>,
    discarded: bool,
    // Among the requests that the application has in hand.
    in_hand: bool,
    // A sidecar of the mesh hears the answer.
    is_for_a_sidecar: bool,
    // The answer says that its trace is kept.
    is_marked: Cell<bool>,
    // When it was last sent again.
    again: Option<(SystemTime, Instant)>,
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
    /// What operators ask of single requests.
    pub(crate) sightings: Sightings,
    origin: RefCell<Origin>,
    // The same as it stands on every line.
    who: RefCell<Vec<u8>>,
    logs: Logs,
    flood: RefCell<Flood>,
    // Where a line is put together; kept for the next one.
    line: RefCell<Vec<u8>>,
    scope: InstrumentationScope,
    // Spans that nobody sampled.
    retention: Option<Retention>,
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
    /// A task runs that sends them ([`crate::telemetry::otlp::run`]); so many wait for it.
    Export(Queue),
    /// No collector is configured.
    Discard,
}

impl Telemetry {
    /// Records end in `logs`, in `metrics` and, with [`Spans::Export`], in a queue of spans.
    #[must_use]
    pub fn new(origin: Origin, logs: Logs, metrics: Metrics, spans: Spans, tracing: Tracing) -> Rc<Self> {
        metrics.named(&origin.namespace, &origin.service);
        let queue = match spans {
            Spans::Export(queue) => Some(queue),
            Spans::Discard => None,
        };
        Rc::new(Self {
            metrics,
            spans: queue.map(SpanQueue::new),
            edges: Edges::default(),
            sightings: Sightings::default(),
            who: RefCell::new(who(&origin)),
            origin: RefCell::new(origin),
            logs,
            flood: RefCell::default(),
            line: RefCell::default(),
            scope: InstrumentationScope::builder("douane.proxy")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            retention: queue.and_then(|_| Retention::new(tracing.retain)),
            tracer: Tracer::new(tracing),
            scolded: Cell::default(),
        })
    }

    /// Begins the record of a request or stream.
    #[must_use]
    pub fn begin(self: &Rc<Self>, direction: Direction, destination: SocketAddr) -> Access {
        self.metrics.began(direction);
        let since = Instant::now();
        Access {
            record: Record::new(direction, destination),
            place: None,
            from: SystemTime::now(),
            since,
            in_our_hands: Some(since),
            opened: None,
            discarded: false,
            in_hand: false,
            is_for_a_sidecar: false,
            is_marked: Cell::default(),
            again: None,
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
        if direction == Direction::Inbound {
            self.tracer.enters(trace.as_ref());
            access.in_hand = true;
            access.record.user_agent = user_agent(headers);
        }
        access.record.request_id = request_id::of(headers);
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
    }

    // A sampled span is exported, and one of a trace that is kept; others are held for a while.
    fn trace(&self, record: &mut Record, lasted: Lasted) {
        let Some(trace) = &record.trace else { return };
        let (trace_id, Some(retention)) =
            (trace.trace_id, self.retention.as_ref().filter(|_| !trace.sampled))
        else {
            return if trace.sampled {
                self.export(record, lasted);
            };
        };
        match retention.fate(record, trace_id, lasted) {
            Fate::Held => {
                let empty = Record::new(record.direction, record.destination);
                return retention.hold(trace_id, mem::replace(record, empty), lasted);
            }
            Fate::Began => self.release(retention, trace_id),
            Fate::Kept => {}
        }
        self.export(record, lasted);
        retention.call(record, trace_id);
    }

    fn export(&self, record: &Record, lasted: Lasted) {
        if let (Some(spans), Some(trace)) = (&self.spans, &record.trace)
            && !spans.push(|| span(record, trace, lasted, &self.scope))
        {
            self.metrics.spans().dropped("queue_full", 1);
        }
    }

    fn release(&self, retention: &Retention, trace_id: u128) {
        self.metrics.spans().kept();
        retention.release(trace_id, |record, lasted| {
            self.export(record, lasted);
            retention.call(record, trace_id);
        });
    }

    /// All that is held of this trace is exported, and what is still to come of it.
    pub(crate) fn keep(&self, trace_id: u128) {
        if let Some(retention) = self.retention.as_ref().filter(|retention| retention.is_told(trace_id)) {
            self.release(retention, trace_id);
        }
    }

    /// Waits until there are peers to be told of traces that are kept.
    pub(crate) async fn calls(&self) -> Vec<Call> {
        match &self.retention {
            Some(retention) => retention.calls().await,
            None => pending().await,
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
            sightings: Sightings::default(),
            origin: RefCell::default(),
            who: RefCell::default(),
            logs: Logs::default(),
            flood: RefCell::default(),
            line: RefCell::default(),
            scope: InstrumentationScope::default(),
            retention: None,
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

    /// It goes on to whoever is to answer it, or its answer goes back: from now on it is not this sidecar that takes time.
    pub fn hands_over(&mut self) {
        if let Some(since) = self.in_our_hands.take() {
            self.record.overhead = since.elapsed();
        }
    }

    /// It goes on once more: what was tried is told as a span of its own, and what comes is another one.
    pub(crate) fn sends_again(&mut self) {
        let lasted = self.since_sent();
        if let Some(trace) = &mut self.record.trace {
            let next = trace.sibling();
            let keeps = |retention: &Retention| retention.keeps(next.trace_id);
            if trace.sampled || self.telemetry.retention.as_ref().is_some_and(keeps) {
                self.telemetry.export(&self.record, lasted);
            }
            self.record.trace = Some(next);
        }
        self.record.resends += 1;
        self.record.overhead_before += mem::take(&mut self.record.overhead);
        let now = Instant::now();
        (self.again, self.in_our_hands) = (Some((SystemTime::now(), now)), Some(now));
    }

    /// Names its span to the next hop.
    pub fn write_trace(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.record.trace {
            self.telemetry.tracer.write(trace, headers);
        }
    }

    /// It comes from outside the mesh: where nobody has given it a name that it can be looked for by, we do.
    pub fn enters_the_mesh(&mut self, headers: &mut HeaderMap) {
        if let Some(id) = request_id::give(headers, self.from) {
            self.record.request_id = Some(id);
        }
    }

    /// A sidecar of the mesh hears the answer.
    pub fn answers_a_sidecar(&mut self) {
        self.is_for_a_sidecar = true;
    }

    /// The trace that whoever hears the answer is to keep as well, unless it was told.
    pub(crate) fn kept_trace(&self) -> Option<u128> {
        let is_news = self.is_for_a_sidecar && !self.is_marked.get();
        let retention = self.telemetry.retention.as_ref().filter(|_| is_news)?;
        let trace_id = self.record.trace.as_ref().filter(|trace| !trace.sampled)?.trace_id;
        if Outcome::of(&self.record).is_failure() {
            self.telemetry.keep(trace_id);
        }
        retention.keeps(trace_id).then_some(trace_id)
    }

    /// Whoever hears the answer was told.
    pub(crate) fn marked(&self) {
        self.is_marked.set(true);
    }

    /// Whoever was asked says that it keeps a trace. It is believed of the mesh, and of this trace.
    pub(crate) fn told_to_keep(&self, trace_id: u128) {
        let Record { direction, trace, .. } = &self.record;
        let is_this = trace.as_ref().is_some_and(|trace| trace.trace_id == trace_id && !trace.sampled);
        if is_this && *direction == Direction::Outbound && self.record.peer_is_of_ours() {
            self.telemetry.keep(trace_id);
        }
    }

    // The last attempt, which is mostly the only one.
    fn since_sent(&self) -> Lasted {
        let (from, since) = self.again.unwrap_or((self.from, self.since));
        Lasted { from, length: since.elapsed() }
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
        if self.in_hand {
            self.telemetry.tracer.leaves(self.record.trace.as_ref());
        }
        if self.discarded && self.opened.is_none() {
            return self.telemetry.metrics.discarded(self.record.direction);
        }
        // A stream that carried something, or was not refused, was open.
        let Record { method, refusal, bytes_in, bytes_out, .. } = &self.record;
        if method.is_none() && (refusal.is_none() || bytes_in + bytes_out > 0) {
            self.opened();
        }
        self.hands_over();
        let lasted = Lasted { from: self.from, length: self.since.elapsed() };
        self.telemetry.end(&self.record, lasted);
        self.telemetry.edges.ended(&self.record, lasted.length, self.opened.as_deref());
        self.telemetry.sightings.ended(&self.record, lasted);
        if self.opened.is_some() {
            self.telemetry.metrics.closed(&self.record);
        }
        let attempt = if self.again.is_some() { self.since_sent() } else { lasted };
        self.telemetry.trace(&mut self.record, attempt);
    }
}

fn user_agent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(text.get(..LONGEST_AGENT.min(text.len()))?.into())
}

// Bytes; browsers need about 150, and it is kept with each span that is held.
const LONGEST_AGENT: usize = 256;

#[cfg(test)]
mod tests;
