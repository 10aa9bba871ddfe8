//! One [`Access`] for each request or stream: created when it begins, filled on its way, told once when it is dropped at
//! the last byte. Log line, metrics and span come from the same record at the same moment, so they cannot disagree.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::InstrumentationScope;

pub use crate::telemetry::record::{Direction, Protection, Record};
use crate::telemetry::{
    flood::Flood, line::access_line, metrics::Metrics, origin::Origin, queue::SpanQueue, record::Lasted,
    span::span, writer::LineWriter,
};

/// The guard around a [`Record`].
#[derive(Debug)]
pub struct Access {
    /// What is known so far.
    pub record: Record,
    from: SystemTime,
    since: Instant,
    opened: bool,
    telemetry: Rc<Telemetry>,
}

/// Where records end: log, metrics, spans.
#[derive(Debug)]
pub struct Telemetry {
    /// What is counted; `metrics.encode()` is the body of `/metrics`.
    pub metrics: Metrics,
    /// Finished spans; `None` where no collector is configured.
    pub(crate) spans: Option<SpanQueue>,
    origin: RefCell<Origin>,
    log: Option<LineWriter>,
    flood: RefCell<Flood>,
    scope: InstrumentationScope,
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
    /// Records end in `log`, in `metrics` and, with [`Spans::Export`], in a queue of spans.
    #[must_use]
    pub fn new(origin: Origin, log: Option<LineWriter>, metrics: Metrics, spans: Spans) -> Rc<Self> {
        Rc::new(Self {
            metrics,
            spans: (spans == Spans::Export).then(SpanQueue::default),
            origin: RefCell::new(origin),
            log,
            flood: RefCell::default(),
            scope: InstrumentationScope::builder("douane.proxy")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        })
    }

    /// Begins the record of a request or stream.
    #[must_use]
    pub fn begin(self: &Rc<Self>, direction: Direction, destination: SocketAddr) -> Access {
        self.metrics.began(direction);
        Access {
            record: Record::new(direction, destination),
            from: SystemTime::now(),
            since: Instant::now(),
            opened: false,
            telemetry: Rc::clone(self),
        }
    }

    /// The control plane says what the workload is called; what the operator said stays.
    pub fn name_service(&self, service: &str) {
        let mut origin = self.origin.borrow_mut();
        if origin.guessed && *origin.service != *service {
            origin.service = service.into();
        }
    }

    /// Who tells.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin.borrow().clone()
    }

    /// Waits until the access log is written, for `limit` at most. Blocks: for the end of the process.
    pub fn flush_log(&self, limit: Duration) {
        if let Some(log) = &self.log {
            log.flush(limit);
        }
    }

    fn end(&self, record: &Record, lasted: Lasted) {
        self.metrics.ended(record, lasted);
        if let Some(log) = &self.log
            && let Some(suppressed) = self.admits(record)
        {
            log.send(access_line(&self.origin.borrow(), record, lasted, suppressed));
        }
        if let Some(spans) = &self.spans
            && let Some(trace) = record.trace.as_ref().filter(|trace| trace.sampled)
            && !spans.push(|| span(record, trace, lasted, &self.scope))
        {
            self.metrics.dropped_spans("queue_full", 1);
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
            metrics: Metrics::new(&crate::telemetry::writer::LostLines::default()),
            spans: None,
            origin: RefCell::default(),
            log: None,
            flood: RefCell::default(),
            scope: InstrumentationScope::default(),
        }
    }
}

impl Access {
    /// An opaque stream was admitted. (Its end is counted when the access is dropped.)
    pub fn opened(&mut self) {
        if !self.opened {
            self.opened = true;
            self.telemetry.metrics.opened(self.record.direction);
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // A stream that nobody said was opened, and that was not refused, was open nevertheless.
        if self.record.method.is_none() && self.record.refusal.is_none() {
            self.opened();
        }
        let lasted = Lasted { from: self.from, length: self.since.elapsed() };
        self.telemetry.end(&self.record, lasted);
        if self.opened {
            self.telemetry.metrics.closed(&self.record);
        }
    }
}
