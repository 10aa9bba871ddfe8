//! A histogram of durations whose buckets name a trace each (OpenMetrics 1.0, Exemplars): from the slow bucket of a
//! dashboard to the trace that fell into it.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::exemplar::HistogramWithExemplars,
};

use crate::telemetry::{
    hex,
    record::{Lasted, Record},
};

/// Durations in seconds.
pub(super) type Durations = HistogramWithExemplars<TraceId>;

/// Of an exported trace: nobody could look another one up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TraceId(u128);

/// An empty histogram with the buckets of OpenTelemetry's `http.server.request.duration`, so that dashboards fit.
pub(super) fn durations() -> Durations {
    Durations::new(BUCKETS.into_iter())
}

/// The same for what the sidecar itself needs: tens of microseconds as a rule, much more where it waits.
pub(super) fn fine_durations() -> Durations {
    Durations::new(FINE_BUCKETS.into_iter())
}

/// Counts how long a record lasted.
pub(super) fn observe(durations: &Durations, record: &Record, lasted: Lasted) {
    observe_part(durations, lasted.length, record, lasted);
}

/// Counts how long a part of it was.
pub(super) fn observe_part(durations: &Durations, part: Duration, record: &Record, lasted: Lasted) {
    let trace = record.trace.as_ref().filter(|trace| trace.sampled).map(|trace| TraceId(trace.trace_id));
    let at = trace.is_some().then(|| lasted.until());
    durations.observe(part.as_secs_f64(), trace, at);
}

impl EncodeLabelSet for TraceId {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let digits = hex::of(self.0.to_be_bytes());
        [("trace_id", str::from_utf8(digits.as_flattened()).unwrap_or_default())].encode(encoder)
    }
}

// Seconds.
const FINE_BUCKETS: [f64; 12] =
    [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
// Seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
