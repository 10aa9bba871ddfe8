//! How often an identity may ask: a token bucket for each, shared by all its streams.
//!
//! Pure but for the lock: the time is an argument.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use douane_proto::id::WorkloadId;

/// Look-ups a second, for long.
const RATE: f64 = 50.0;
/// Look-ups at once: a pod that starts asks for all that it talks to.
const BURST: f64 = 200.0;

/// The buckets of all identities that have a stream.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<WorkloadId, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    streams: usize,
}

impl Limits {
    /// A stream of `id` opens.
    pub(crate) fn enter(&self, id: &WorkloadId, now: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A bucket that is full again tells nothing: who went away and came back starts with a new one.
        buckets.retain(|_, bucket| bucket.streams > 0 || bucket.level(now) < BURST);
        let fresh = Bucket { tokens: BURST, filled: now, streams: 0 };
        buckets.entry(id.clone()).or_insert(fresh).streams += 1;
    }

    /// A stream of `id` ends.
    pub(crate) fn leave(&self, id: &WorkloadId) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(id) {
            bucket.streams = bucket.streams.saturating_sub(1);
        }
    }

    /// Takes a token of `id`, or says how long until there is one.
    pub(crate) fn take(&self, id: &WorkloadId, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.get_mut(id) else { return Err(Duration::from_secs(1)) };
        bucket.tokens = bucket.level(now);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / RATE));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

impl Bucket {
    fn level(&self, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.filled).as_secs_f64() * RATE).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> WorkloadId {
        "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate_holds() {
        let (limits, now) = (Limits::default(), Instant::now());
        limits.enter(&web(), now);
        for _ in 0..200 {
            assert_eq!(limits.take(&web(), now), Ok(()));
        }
        let wait = limits.take(&web(), now).unwrap_err();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        assert_eq!(limits.take(&web(), now + Duration::from_millis(21)), Ok(()));
        assert!(limits.take(&web(), now + Duration::from_millis(22)).is_err());
    }

    #[test]
    fn a_second_stream_brings_no_second_bucket() {
        let (limits, now) = (Limits::default(), Instant::now());
        limits.enter(&web(), now);
        for _ in 0..200 {
            limits.take(&web(), now).unwrap();
        }
        limits.leave(&web());
        limits.enter(&web(), now);
        assert!(limits.take(&web(), now).is_err());
    }
}
