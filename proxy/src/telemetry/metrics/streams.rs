//! Connections and opaque streams: how many, how many bytes, and what they were found to speak.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use crate::telemetry::{
    metrics::{
        labels::{Detected, Flow, OTHER, Way, way},
        series::{Series, Shelf},
    },
    record::{Direction, Record},
};

#[derive(Debug)]
pub(super) struct Streams {
    active: Series<Way, Gauge>,
    opened: Series<Way, Counter>,
    closed: Series<Way, Counter>,
    bytes: Series<Flow, Counter>,
    plaintext: Series<Way, Counter>,
    detections: Series<Detected, Counter>,
    listened: Histogram,
}

impl Streams {
    pub(super) fn register(shelf: &mut Shelf<'_>) -> Self {
        let listened = Histogram::new(LISTENED);
        shelf.registry.register(
            "douane_detect_duration_seconds",
            "How long an undeclared connection was listened to before it was known what it speaks",
            listened.clone(),
        );
        let streams = Self {
            listened,
            active: Series::register(
                shelf,
                "douane_active",
                "Requests and streams in progress",
                Gauge::default,
                Way { direction: OTHER },
            ),
            opened: Series::register(
                shelf,
                "douane_tcp_connections_opened",
                "Opaque streams that began",
                Counter::default,
                Way { direction: OTHER },
            ),
            closed: Series::register(
                shelf,
                "douane_tcp_connections_closed",
                "Opaque streams that ended",
                Counter::default,
                Way { direction: OTHER },
            ),
            bytes: Series::register(
                shelf,
                "douane_tcp_bytes",
                "Bytes of opaque streams that ended, from and to the client",
                Counter::default,
                Flow { direction: OTHER, flow: OTHER },
            ),
            plaintext: Series::register(
                shelf,
                "douane_plaintext",
                "Connections from peers, and requests and streams to peers, without mutual TLS, as the mesh permits",
                Counter::default,
                Way { direction: OTHER },
            ),
            detections: Series::register(
                shelf,
                "douane_detect",
                "Connections that were listened to, by what they were found to speak",
                Counter::default,
                Detected { direction: OTHER, result: OTHER },
            ),
        };
        for direction in [Direction::Inbound, Direction::Outbound] {
            streams.plaintext.show(&way(direction));
        }
        streams
    }

    pub(super) fn began(&self, direction: Direction) {
        self.active.of(&way(direction), Gauge::inc);
    }

    pub(super) fn ended(&self, direction: Direction) {
        self.active.of(&way(direction), Gauge::dec);
    }

    pub(super) fn in_progress(&self) -> i64 {
        let of = |direction| self.active.of(&way(direction), |active| active.get());
        of(Direction::Inbound) + of(Direction::Outbound)
    }

    pub(super) fn opened(&self, direction: Direction) {
        self.opened.of(&way(direction), Counter::inc);
    }

    pub(super) fn closed(&self, record: &Record) {
        let direction = record.direction.as_str();
        self.closed.of(&way(record.direction), Counter::inc);
        for (flow, count) in [("received", record.bytes_in), ("sent", record.bytes_out)] {
            self.bytes.of(&Flow { direction, flow }, |bytes| bytes.inc_by(count));
        }
    }

    pub(super) fn in_plaintext(&self, direction: Direction) {
        self.plaintext.of(&way(direction), Counter::inc);
    }

    pub(super) fn detected(&self, direction: Direction, result: &'static str, after: Duration) {
        self.detections.of(&Detected { direction: direction.as_str(), result }, Counter::inc);
        self.listened.observe(after.as_secs_f64());
    }
}

// Seconds. 0.1 is where a silent client is no longer waited for, 5 where a law needs HTTP.
const LISTENED: [f64; 8] = [0.0005, 0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0];
