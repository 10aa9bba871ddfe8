//! How long it is worth to wait in a queue. Pure.
//!
//! A queue that empties now and then smooths a burst; one that does not only adds its length to every answer. So who
//! joins a standing queue waits a tenth only ("controlled delay"): the oldest leave first, and what is served is fresh.

use std::time::{Duration, Instant};

/// A queue that has not been empty for this long stands.
const STANDS_AFTER: Duration = Duration::from_secs(1);
/// Of the usual wait.
const OF_STANDING: u32 = 10;

/// Since when somebody has been waiting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing(Option<Instant>);

impl Standing {
    /// Somebody joins at `now`.
    #[must_use]
    pub fn joined(self, now: Instant) -> Self {
        Self(self.0.or(Some(now)))
    }

    /// Nobody waits any more.
    #[must_use]
    pub fn emptied(self) -> Self {
        Self(None)
    }

    /// How long whoever joins at `now` waits at most, `usual` being the configured wait.
    #[must_use]
    pub fn patience(self, now: Instant, usual: Duration) -> Duration {
        match self.0 {
            Some(since) if now.saturating_duration_since(since) > STANDS_AFTER => usual / OF_STANDING,
            _ => usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_may_wait_and_a_standing_queue_may_not() {
        let start = Instant::now();
        let queue = Standing::default().joined(start);

        assert_eq!(queue.patience(start, USUAL), USUAL);
        let later = start + Duration::from_millis(900);
        assert_eq!(queue.joined(later).patience(later, USUAL), USUAL);
        let standing = start + Duration::from_millis(1100);
        assert_eq!(queue.joined(standing).patience(standing, USUAL), Duration::from_millis(100));
    }

    #[test]
    fn a_queue_that_was_empty_begins_anew() {
        let start = Instant::now();
        let later = start + Duration::from_secs(9);

        let queue = Standing::default().joined(start).emptied().joined(later);

        assert_eq!(queue.patience(later, USUAL), USUAL);
    }
}
