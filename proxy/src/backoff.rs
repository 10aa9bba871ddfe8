//! How long to wait before the next attempt: growing, capped, with full jitter, so that many sidecars that lost the
//! same control plane do not come back together. Pure; a leaf.

use std::time::Duration;

/// A wait that doubles with each failure.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The most after the first failure.
    pub base: Duration,
    /// The most after many.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row; `random` in 0..1 spreads it over the whole range.
    #[must_use]
    pub fn wait(self, failures: u32, random: f64) -> Duration {
        let doubled =
            self.base.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        // Never nothing at all: a failure that comes at once must not spin.
        self.base.min(self.cap) / 4 + doubled.min(self.cap).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_never_nothing_and_never_past_the_cap(failures in any::<u32>(), random in any::<f64>()) {
            let backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30) };
            let wait = backoff.wait(failures, if random.is_nan() { 0.5 } else { random });
            prop_assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_millis(30_050));
        }
    }

    #[test]
    fn waits_grow_until_the_cap() {
        let backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30) };
        let waits: Vec<_> = (1..=9).map(|failures| backoff.wait(failures, 1.0).as_millis()).collect();
        assert_eq!(waits, [250, 450, 850, 1650, 3250, 6450, 12850, 25650, 30050]);
    }
}
