//! Are we ready? Knows nothing of what makes us so: the application says it.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How far we are; shared by its clones, on one thread.
#[derive(Debug, Clone, Default)]
pub struct Health(Rc<State>);

#[derive(Debug, Default)]
struct State {
    phase: Cell<Phase>,
    // The end of our certificate, seconds since 1970.
    certified_until: Cell<Option<i64>>,
}

/// How far we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// No certificate yet.
    #[default]
    WithoutIdentity,
    /// A certificate, but no law yet.
    WithoutLaw,
    /// Serving.
    Ready,
    /// Serving as far as we can: our certificate has ended, so that no peer talks to us.
    Expired,
    /// Finishing what runs.
    Draining,
}

impl Health {
    /// Says how far we are.
    pub fn set(&self, phase: Phase) {
        self.0.phase.set(phase);
    }

    /// Says when our certificate ends, seconds since 1970.
    pub fn set_certified_until(&self, not_after: i64) {
        self.0.certified_until.set(Some(not_after));
    }

    /// How far we are now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    // At a time since 1970.
    fn at(&self, now: Duration) -> Phase {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match self.0.phase.get() {
            Phase::Ready if self.0.certified_until.get().is_some_and(|end| now > end) => Phase::Expired,
            phase => phase,
        }
    }
}

impl Phase {
    /// For a human.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::WithoutIdentity => "waiting for the first certificate",
            Self::WithoutLaw => "waiting for the first policies",
            Self::Ready => "ready",
            Self::Expired => "the certificate has ended; see the log for why there is no new one",
            Self::Draining => "draining",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_ready_past_the_end_of_the_certificate() {
        let health = Health::default();
        assert_eq!(health.phase(), Phase::WithoutIdentity);
        health.set(Phase::Ready);
        health.set_certified_until(1000);
        assert_eq!(health.at(Duration::from_secs(1000)), Phase::Ready);
        assert_eq!(health.at(Duration::from_secs(1001)), Phase::Expired);
        health.set_certified_until(2000);
        assert_eq!(health.at(Duration::from_secs(1001)), Phase::Ready, "renewed");
        health.set(Phase::Draining);
        assert_eq!(health.at(Duration::from_secs(9000)), Phase::Draining);
    }
}
