//! How durations are counted: by a fixed few powers of two, so that counting costs nothing and figures of many sidecars
//! add up. Both sides of the wire mean the same buckets.

use std::time::Duration;

/// The number of buckets; the last one has no upper bound.
pub const BUCKETS: usize = 17;

/// The first bucket ends here, each further one at twice as long: 0.256 ms to 8.4 s.
const FIRST_MICROS: u64 = 256;

/// The bucket that a duration belongs to.
///
/// ```
/// use std::time::Duration;
/// use douane_proto::figures::{BUCKETS, bucket};
/// assert_eq!(bucket(Duration::ZERO), 0);
/// assert_eq!(bucket(Duration::from_micros(256)), 0);
/// assert_eq!(bucket(Duration::from_micros(257)), 1);
/// assert_eq!(bucket(Duration::from_secs(3600)), BUCKETS - 1);
/// ```
#[must_use]
pub fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let bits = u64::BITS - (micros.saturating_sub(1) / FIRST_MICROS).leading_zeros();
    usize::try_from(bits).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Where a bucket ends, in milliseconds; `None`: nowhere.
#[must_use]
pub fn upper_bound_ms(bucket: usize) -> Option<f64> {
    let doublings = u32::try_from(bucket).ok().filter(|_| bucket < BUCKETS - 1)?;
    Some(f64::from(u32::try_from(FIRST_MICROS).ok()?) * f64::from(2_u32.pow(doublings)) / 1000.0)
}

/// The duration, in milliseconds, that this part (0 to 1) of all durations did not exceed; `None` where nothing was
/// counted. Within a bucket durations count as spread evenly, beyond the last bound as that bound.
///
/// ```
/// use douane_proto::figures::quantile_ms;
/// assert_eq!(quantile_ms(&[], 0.5), None);
/// assert_eq!(quantile_ms(&[0, 10], 0.5), Some(0.384));
/// assert_eq!(quantile_ms(&[90, 10], 0.9), Some(0.256));
/// ```
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52, and this is an estimate"
)]
pub fn quantile_ms(durations: &[u64], part: f64) -> Option<f64> {
    let all = durations.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    if all == 0 {
        return None;
    }
    let wanted = part * all as f64;
    let (mut below, mut from) = (0.0, 0.0);
    for (bucket, count) in durations.iter().enumerate() {
        let count = *count as f64;
        let Some(to) = upper_bound_ms(bucket) else { break };
        if count > 0.0 && below + count >= wanted {
            return Some(from + (to - from) * ((wanted - below) / count));
        }
        below += count;
        from = to;
    }
    Some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_within_the_bounds_of_its_bucket() {
        for micros in (0..20_000_000).step_by(977) {
            let (at, ms) =
                (bucket(Duration::from_micros(micros)), f64::from(u32::try_from(micros).unwrap()) / 1000.0);
            assert!(upper_bound_ms(at).is_none_or(|to| ms <= to), "{micros}");
            assert!(at == 0 || upper_bound_ms(at - 1).is_some_and(|from| ms > from), "{micros}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_lasted_beyond_the_last_bound_counts_as_that_bound() {
        let mut durations = [0; BUCKETS];
        durations[BUCKETS - 1] = 7;
        assert_eq!(quantile_ms(&durations, 0.5), upper_bound_ms(BUCKETS - 2));
    }
}
