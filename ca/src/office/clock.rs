//! A clock that went back signs nothing: what it would sign could be told by nobody from what was signed before.
//!
//! Until it has caught up, or somebody who knows that the earlier time was the wrong one starts the control plane anew.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use super::refusal::Refusal;

/// As far as certificates are backdated: a clock that is corrected by less has not gone back past the start of any.
const SLACK_SECONDS: i64 = 60;

/// The latest time at which something was signed.
#[derive(Debug)]
pub(super) struct LastSigned(AtomicI64);

impl LastSigned {
    pub(super) fn new() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }

    /// May something be signed at `now`? Then it counts as signed.
    pub(super) fn admit(&self, now: SystemTime) -> Result<(), Refusal> {
        let now = unix(now);
        let latest = self.0.fetch_max(now, Ordering::AcqRel);
        let behind = latest.saturating_sub(SLACK_SECONDS).saturating_sub(now);
        if behind > 0 && latest != i64::MIN {
            Err(Refusal::ClockWentBack(behind + SLACK_SECONDS))
        } else {
            Ok(())
        }
    }
}

fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN + 1, |seconds| -seconds),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn t16_a_clock_that_went_back_past_what_was_signed_signs_nothing_until_it_has_caught_up() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let second = Duration::from_secs(1);
        let signed = LastSigned::new();
        signed.admit(noon).unwrap();
        signed.admit(noon - 60 * second).unwrap();
        let refused = signed.admit(noon - 3600 * second).unwrap_err();
        assert!(matches!(refused, Refusal::ClockWentBack(3600)), "{refused}");
        assert!(signed.admit(noon - 61 * second).is_err());
        signed.admit(noon + 3600 * second).unwrap();
        assert!(signed.admit(noon).is_err());
        assert!(signed.admit(UNIX_EPOCH - second).is_err());
    }
}
