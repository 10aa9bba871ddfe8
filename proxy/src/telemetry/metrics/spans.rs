//! What is counted of traces: what applications do with their headers, and what becomes of spans.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge},
};

use crate::telemetry::{
    metrics::{
        labels::{OTHER, Reason},
        series::{Series, Shelf},
    },
    tracer::Forwarded,
};

/// Part of [`crate::telemetry::metrics::Metrics`].
#[derive(Debug)]
pub(crate) struct Spans {
    propagation: Series<Propagation, Counter>,
    dropped: Series<Reason, Counter>,
    exported: Counter,
    kept: Counter,
    exporter_up: Gauge,
}

/// What an application does with the trace headers that it is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Propagation {
    forwarded: &'static str,
}

impl Spans {
    pub(super) fn register(shelf: &mut Shelf<'_>) -> Self {
        let metrics = Self {
            propagation: Series::register(
                shelf,
                "douane_trace_propagation",
                "Requests that the application sends while it answers some: did it forward trace headers?",
                Counter::default,
                Propagation { forwarded: OTHER },
            ),
            dropped: Series::register(
                shelf,
                "douane_otel_spans_dropped",
                "Spans that no collector received",
                Counter::default,
                Reason { reason: OTHER },
            ),
            exported: Counter::default(),
            kept: Counter::default(),
            exporter_up: Gauge::default(),
        };
        shelf.registry.register(
            "douane_otel_spans_exported",
            "Spans that a collector received",
            metrics.exported.clone(),
        );
        shelf.registry.register(
            "douane_otel_exporter_up",
            "Whether the last export succeeded",
            metrics.exporter_up.clone(),
        );
        shelf.registry.register(
            "douane_traces_kept",
            "Unsampled traces that were exported because a request of theirs failed or was slow",
            metrics.kept.clone(),
        );
        metrics
    }

    pub(crate) fn forwarded(&self, forwarded: Forwarded) {
        let forwarded = match forwarded {
            Forwarded::Yes => "yes",
            Forwarded::No => "no",
        };
        self.propagation.of(&Propagation { forwarded }, Counter::inc);
    }

    pub(crate) fn dropped(&self, reason: &'static str, count: usize) {
        self.dropped.of(&Reason { reason }, |dropped| dropped.inc_by(count as u64));
    }

    pub(crate) fn exporter_is_up(&self, up: i64) {
        self.exporter_up.set(up);
    }

    pub(crate) fn kept(&self) {
        self.kept.inc();
    }

    pub(crate) fn exported(&self, count: usize) {
        self.exported.inc_by(count as u64);
    }
}
