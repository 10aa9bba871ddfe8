//! What is counted, for Prometheus. Names and labels follow OpenTelemetry's conventions where those have one, else
//! `douane_`; where the operator wants them, Istio's names tell the same once more (`istio`).
//!
//! Labels are fixed words, names that the control plane gave, or identities that were proven: never a path, a Host, an
//! SNI or anything else that a client may invent; the series of a metric are capped, and idle ones forgotten
//! (`series`). Rooms do not know this registry; they fill an [`crate::telemetry::access::Access`], and the application
//! tells what else there is (certificate, snapshot).

mod exemplar;
mod exposition;
mod istio;
mod labels;
mod law;
mod process;
mod requests;
mod series;
mod spans;
mod state;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    fmt,
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::{encoding::text, metrics::counter::Counter, registry::Registry};

pub use crate::telemetry::metrics::exposition::Exposition;
use crate::telemetry::{
    metrics::{
        istio::Istio, law::Law, process::Process, requests::Requests, series::Shelf, spans::Spans,
        state::State, streams::Streams,
    },
    record::{Direction, Lasted, Record},
    writer::LostLines,
};

/// All metrics of a sidecar.
pub struct Metrics {
    registry: Registry,
    requests: Requests,
    streams: Streams,
    law: Law,
    state: State,
    spans: Spans,
    istio: Option<Istio>,
    overflow: Counter,
    idle: Duration,
    swept: Cell<Instant>,
}

/// How a renewal of the certificate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The new certificate is in use.
    Succeeded,
    /// The old one stays in use.
    Failed,
}

/// A series that nothing touched for as long, or at most twice as long, is forgotten.
pub const IDLE: Duration = Duration::from_secs(3600);

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(lost_lines: &LostLines, lost_audit: &LostLines) -> Self {
        let (mut registry, overflow) = (Registry::default(), Counter::default());
        registry.register_collector(Box::new(Process));
        let shelf = &mut Shelf { registry: &mut registry, overflow: &overflow };
        Self {
            requests: Requests::register(shelf),
            streams: Streams::register(shelf),
            law: Law::register(shelf),
            state: State::register(shelf, lost_lines, lost_audit),
            spans: Spans::register(shelf),
            istio: None,
            idle: IDLE,
            swept: Cell::new(Instant::now()),
            registry,
            overflow,
        }
    }

    /// Tells Istio's standard metrics as well.
    #[must_use]
    pub fn with_istio_names(mut self) -> Self {
        let shelf = &mut Shelf { registry: &mut self.registry, overflow: &self.overflow };
        self.istio = Some(Istio::register(shelf));
        self
    }

    /// With another time after which idle series are forgotten than [`IDLE`].
    #[must_use]
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// The text that `/metrics` answers with.
    #[must_use]
    pub fn encode(&self, exposition: Exposition) -> String {
        self.sweep(Instant::now());
        self.state.look();
        let mut text = String::new();
        match text::encode(&mut text, &self.registry) {
            Ok(()) => exposition.of(text),
            // Writing into memory fails only if a metric cannot say itself; a scrape without end mark is an error.
            Err(fmt::Error) => String::new(),
        }
    }

    /// What the workload is called.
    pub fn named(&self, namespace: &str, service: &str) {
        if let Some(istio) = &self.istio {
            istio.named(namespace, service);
        }
    }

    /// A certificate came into use, or could not be renewed.
    pub fn renewed(&self, renewal: Renewal) {
        self.state.renewed(match renewal {
            Renewal::Succeeded => "succeeded",
            Renewal::Failed => "failed",
        });
    }

    /// When the certificate in use begins and ends, and when the first root of the trust bundle ends; seconds since 1970.
    pub fn certified(&self, not_before: i64, not_after: i64, first_root: Option<i64>) {
        self.state.certificate_begin.set(not_before);
        self.state.certificate_expiry.set(not_after);
        self.state.roots_expiry.set(first_root.unwrap_or_default());
    }

    /// The snapshot in use, and how many parts of its law could not be applied as written.
    pub fn snapshot(&self, epoch: u64, sequence: u64, complaints: usize) {
        self.state.snapshot(epoch, sequence, SystemTime::now());
        self.state.complaints.set(i64::try_from(complaints).unwrap_or(i64::MAX));
    }

    /// Whether the control plane is heard.
    pub fn connected(&self, connected: bool) {
        self.state.connected.set(connected.into());
    }

    /// What an undeclared connection was found to speak, and after how long.
    pub fn detected(&self, direction: Direction, result: &'static str, after: Duration) {
        self.streams.detected(direction, result, after);
    }

    /// How short memory is: 0 calm, 1 tight, 2 high, 3 full.
    pub fn pressure(&self, level: i64) {
        self.state.pressure.set(level);
    }

    /// Requests and streams in progress.
    #[must_use]
    pub fn in_progress(&self) -> i64 {
        self.streams.in_progress()
    }

    /// Of traces and their export.
    pub(crate) fn spans(&self) -> &Spans {
        &self.spans
    }

    pub(crate) fn began(&self, direction: Direction) {
        self.streams.began(direction);
    }

    pub(crate) fn discarded(&self, direction: Direction) {
        self.streams.ended(direction);
    }

    pub(crate) fn in_plaintext(&self, direction: Direction) {
        self.streams.in_plaintext(direction);
    }

    pub(crate) fn queued(&self, direction: Direction) {
        self.requests.queued(direction);
    }

    pub(crate) fn retried(&self, reason: &'static str) {
        self.requests.retried(reason);
    }

    pub(crate) fn ejected(&self) {
        self.state.ejections.inc();
    }

    pub(crate) fn opened(&self, direction: Direction) {
        self.streams.opened(direction);
    }

    pub(crate) fn ended(&self, record: &Record, lasted: Lasted) {
        self.streams.ended(record.direction);
        self.law.ended(record);
        self.requests.ended(record, lasted);
        if let Some(istio) = &self.istio {
            istio.ended(record, lasted);
        }
    }

    pub(crate) fn closed(&self, record: &Record) {
        self.streams.closed(record);
        if let Some(istio) = &self.istio {
            istio.closed(record);
        }
    }

    fn sweep(&self, now: Instant) {
        if now.saturating_duration_since(self.swept.get()) < self.idle {
            return;
        }
        self.swept.set(now);
        self.requests.sweep();
        self.law.sweep();
        if let Some(istio) = &self.istio {
            istio.sweep();
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
