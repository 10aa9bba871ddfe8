//! HTTP requests and gRPC calls by OpenTelemetry's names, and what became of their places and retries.

use prometheus_client::metrics::counter::Counter;

use crate::telemetry::{
    metrics::{
        exemplar::{Durations, durations, fine_durations, observe, observe_part},
        labels::{Call, OTHER, Reason, Request, Way, way},
        series::{Series, Shelf},
    },
    record::{Direction, Lasted, Record},
};

#[derive(Debug)]
pub(super) struct Requests {
    server: Series<Request, Durations>,
    client: Series<Request, Durations>,
    called: Series<Call, Durations>,
    calls: Series<Call, Durations>,
    overhead: Series<Way, Durations>,
    queued: Series<Way, Counter>,
    retries: Series<Reason, Counter>,
}

impl Requests {
    pub(super) fn register(shelf: &mut Shelf<'_>) -> Self {
        Self {
            server: Series::register(
                shelf,
                "http_server_request_duration_seconds",
                "Requests from peers to the application, from head to last byte",
                durations,
                Request::other(),
            ),
            client: Series::register(
                shelf,
                "http_client_request_duration_seconds",
                "Requests of the application, from head to last byte",
                durations,
                Request::other(),
            ),
            called: Series::register(
                shelf,
                "rpc_server_call_duration_seconds",
                "gRPC calls from peers to the application; its methods are on the spans",
                durations,
                Call::other(),
            ),
            calls: Series::register(
                shelf,
                "rpc_client_call_duration_seconds",
                "gRPC calls of the application",
                durations,
                Call::other(),
            ),
            overhead: Series::register(
                shelf,
                "douane_proxy_overhead_seconds",
                "How long the sidecar itself had requests in hand, until they were sent on or refused: decisions, places, \
                 connections within the mesh; not the time of whoever answers",
                fine_durations,
                Way { direction: OTHER },
            ),
            queued: Series::register(
                shelf,
                "douane_queued",
                "Requests that had to wait for a place among those in progress",
                Counter::default,
                Way { direction: OTHER },
            ),
            retries: Series::register(
                shelf,
                "douane_retries",
                "Requests that were sent again, and why that was safe",
                Counter::default,
                Reason { reason: OTHER },
            ),
        }
    }

    pub(super) fn ended(&self, record: &Record, lasted: Lasted) {
        if record.method.is_none() {
            return;
        }
        let (requests, calls) = match record.direction {
            Direction::Inbound => (&self.server, &self.called),
            Direction::Outbound => (&self.client, &self.calls),
        };
        requests.of(&Request::of(record), |durations| observe(durations, record, lasted));
        let overhead = record.overhead_before + record.overhead;
        self.overhead
            .of(&way(record.direction), |durations| observe_part(durations, overhead, record, lasted));
        if record.grpc {
            calls.of(&Call::of(record), |durations| observe(durations, record, lasted));
        }
    }

    pub(super) fn queued(&self, direction: Direction) {
        self.queued.of(&way(direction), Counter::inc);
    }

    pub(super) fn retried(&self, reason: &'static str) {
        self.retries.of(&Reason { reason }, Counter::inc);
    }

    pub(super) fn sweep(&self) {
        self.server.sweep();
        self.client.sweep();
        self.called.sweep();
        self.calls.sweep();
    }
}
