//! Whose turn it is to change the authority, by a lease that all replicas can read: pure, `now` is an argument.
//!
//! Clocks of replicas need not agree: each counts by its own how long it has seen no change of the lease. Knows not where the
//! lease lies (`kubernetes`).

use std::time::{Duration, Instant};

/// Who has not renewed for so long has lost it. Longer than an API server needs to come back from a short failure.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// The holder renews this often: three times may fail.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(4);

/// The lease as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Whose it is; nobody's when empty.
    pub(super) holder: String,
    /// Another one after each change.
    pub(super) version: String,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is ours, and fresh.
    Keep,
    /// It is ours, and must be renewed.
    Renew,
    /// It is nobody's: we take it.
    Take,
    /// It is another's.
    Follow,
}

/// What one replica has seen of the lease.
#[derive(Debug, Default)]
pub(super) struct Watched {
    seen: Option<(Found, Instant)>,
    renewed: Option<Instant>,
}

impl Watched {
    /// What `me` does, who finds this.
    pub(super) fn turn(&mut self, found: &Found, me: &str, now: Instant) -> Turn {
        if found.holder == me {
            return match self.renewed {
                Some(then) if now.saturating_duration_since(then) < RENEW_EVERY => Turn::Keep,
                Some(_) => Turn::Renew,
                // Ours from before we were started anew.
                None => Turn::Take,
            };
        }
        self.renewed = None;
        if found.holder.is_empty() {
            return Turn::Take;
        }
        match &self.seen {
            Some((seen, since)) if seen == found => {
                if now.saturating_duration_since(*since) >= LEASE {
                    Turn::Take
                } else {
                    Turn::Follow
                }
            }
            _ => {
                self.seen = Some((found.clone(), now));
                Turn::Follow
            }
        }
    }

    /// It was renewed, or taken; `now` is from before.
    pub(super) fn renewed(&mut self, now: Instant) {
        self.renewed = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(holder: &str, version: u32) -> Found {
        Found { holder: holder.to_owned(), version: version.to_string() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn g11_a_lease_is_taken_when_it_is_nobodys_and_renewed_while_it_is_ours() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        assert_eq!(watched.turn(&found("", 1), "a", now), Turn::Take);
        watched.renewed(now);
        assert_eq!(watched.turn(&found("a", 2), "a", now + SECOND), Turn::Keep);
        assert_eq!(watched.turn(&found("a", 2), "a", now + RENEW_EVERY), Turn::Renew);
        assert_eq!(watched.turn(&found("b", 3), "a", now + RENEW_EVERY), Turn::Follow, "it was lost");
        assert_eq!(
            watched.turn(&found("a", 4), "a", now + RENEW_EVERY),
            Turn::Take,
            "it is not known why it is ours"
        );
    }

    #[test]
    fn g11_a_holder_that_renews_is_left_alone_and_one_that_does_not_is_replaced_by_our_own_clock() {
        let (mut watched, start) = (Watched::default(), Instant::now());
        for renewal in 0..10 {
            let now = start + renewal * RENEW_EVERY;
            assert_eq!(watched.turn(&found("b", renewal), "a", now), Turn::Follow);
            assert_eq!(watched.turn(&found("b", renewal), "a", now + SECOND), Turn::Follow);
        }
        let last = start + 9 * RENEW_EVERY;
        assert_eq!(watched.turn(&found("b", 9), "a", last + LEASE - SECOND), Turn::Follow);
        assert_eq!(watched.turn(&found("c", 10), "a", last + LEASE), Turn::Follow, "a third was faster");
        assert_eq!(watched.turn(&found("c", 10), "a", last + LEASE + LEASE), Turn::Take);
    }
}
