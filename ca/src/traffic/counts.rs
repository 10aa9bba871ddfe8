//! The counters of an edge. Pure.

use std::ops::AddAssign;

use douane_proto::{figures::BUCKETS, wire};
use serde::{Deserialize, Serialize};

/// What was counted of one edge. `douane edges -o json` prints it: names stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests that ended.
    pub requests: u64,
    /// Of these: answered with 5xx or a server's error of gRPC, or not at all.
    pub failures: u64,
    /// Of these: denied by the law.
    pub denied: u64,
    /// Opaque streams that ended, or were refused.
    pub streams: u64,
    /// Of these: broken or refused.
    pub stream_failures: u64,
    /// Of these: denied by the law.
    pub streams_denied: u64,
    /// Bytes from the client: bodies, and streams that ended.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// How long requests took, by `douane_proto::figures`.
    #[serde(skip)]
    pub(crate) durations: [u64; BUCKETS],
}

impl Counts {
    pub(super) fn told(edge: &wire::Edge) -> Self {
        let mut durations = [0; BUCKETS];
        for (own, told) in durations.iter_mut().zip(&edge.durations) {
            *own = *told;
        }
        Self {
            requests: edge.requests,
            failures: edge.failures,
            denied: edge.denied,
            streams: edge.streams,
            stream_failures: edge.stream_failures,
            streams_denied: edge.streams_denied,
            bytes_in: edge.bytes_in,
            bytes_out: edge.bytes_out,
            durations,
        }
    }

    /// What was counted after `earlier`.
    pub(super) fn since(self, earlier: &Self) -> Self {
        let mut durations = self.durations;
        for (now, then) in durations.iter_mut().zip(earlier.durations) {
            *now = now.saturating_sub(then);
        }
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failures: self.failures.saturating_sub(earlier.failures),
            denied: self.denied.saturating_sub(earlier.denied),
            streams: self.streams.saturating_sub(earlier.streams),
            stream_failures: self.stream_failures.saturating_sub(earlier.stream_failures),
            streams_denied: self.streams_denied.saturating_sub(earlier.streams_denied),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            durations,
        }
    }

    /// Is some counter of it higher than in `other`? Of the same edge then, `other` began anew.
    pub(super) fn is_beyond(&self, other: &Self) -> bool {
        let pairs = [
            (self.requests, other.requests),
            (self.streams, other.streams),
            (self.bytes_in, other.bytes_in),
            (self.bytes_out, other.bytes_out),
        ];
        pairs.iter().any(|(own, other)| own > other)
    }

    /// Requests and streams that got through.
    pub(super) fn passed(&self) -> u64 {
        let lost = [self.failures, self.denied, self.stream_failures, self.streams_denied];
        let all = self.requests.saturating_add(self.streams);
        lost.iter().fold(all, |left, lost| left.saturating_sub(*lost))
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        for (own, other) in [
            (&mut self.requests, other.requests),
            (&mut self.failures, other.failures),
            (&mut self.denied, other.denied),
            (&mut self.streams, other.streams),
            (&mut self.stream_failures, other.stream_failures),
            (&mut self.streams_denied, other.streams_denied),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
        ] {
            *own = own.saturating_add(other);
        }
        for (own, other) in self.durations.iter_mut().zip(other.durations) {
            *own = own.saturating_add(other);
        }
    }
}
