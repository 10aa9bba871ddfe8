//! So many a second and no more. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// A bucket of tokens that fills by itself.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    // One token's worth of time.
    each: Duration,
    most: u32,
    // What has been spent is worked off by this time.
    until: Option<Instant>,
}

impl Rate {
    /// `per_second` in the long run, as many at once.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), most: per_second, until: None }
    }

    /// One more at `now`: does it come at a permitted rate?
    pub fn admits(&mut self, now: Instant) -> bool {
        let until = self.until.map_or(now, |until| until.max(now)) + self.each;
        if until.saturating_duration_since(now) > self.each * self.most {
            return false;
        }
        self.until = Some(until);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(100);

        assert!((0..100).all(|_| rate.admits(start)));
        assert!(!rate.admits(start));
        let later = start + Duration::from_millis(50);
        assert_eq!((0..100).filter(|_| rate.admits(later)).count(), 5);
        let rested = start + Duration::from_secs(60);
        assert_eq!((0..200).filter(|_| rate.admits(rested)).count(), 100);
    }
}
