//! How often an identity may ask: a token bucket for each, shared by all its streams.

use std::time::{Duration, Instant};

use douane_proto::id::WorkloadId;

use crate::budget::{Allowance, Budgets};

/// Look-ups: a pod that starts asks for all that it talks to.
const LOOK_UPS: Allowance = Allowance { burst: 200.0, rate: 50.0 };

/// The buckets of all identities.
#[derive(Debug)]
pub(crate) struct Limits(Budgets<WorkloadId>);

impl Limits {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Budgets::new(LOOK_UPS, now))
    }

    /// Takes a token of `id`, or says how long until there is one.
    pub(crate) fn take(&self, id: &WorkloadId, now: Instant) -> Result<(), Duration> {
        self.0.take(id.clone(), 1.0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate_holds() {
        let now = Instant::now();
        let (limits, web) = (Limits::new(now), "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        for _ in 0..200 {
            assert_eq!(limits.take(&web, now), Ok(()));
        }
        let wait = limits.take(&web, now).unwrap_err();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        assert_eq!(limits.take(&web, now + Duration::from_millis(21)), Ok(()));
        assert!(limits.take(&web, now + Duration::from_millis(22)).is_err());
    }
}
