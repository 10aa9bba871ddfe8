//! How much of what there is has been used: memory and the byte budget, and with it what the sidecar still takes on. Pure,
//! but for the state itself, which belongs to the sidecar's one thread as its memory does.
//!
//! Past 85 % resting connections of ours are closed, past 90 % requests are answered 503, past 95 % connections are reset:
//! before the kernel kills, which would end the requests of all. Health, operators and the control plane are served in
//! every state.

use std::{cell::Cell, time::Duration};

use crate::budget;

/// How much of what there is has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// There is enough.
    #[default]
    Calm,
    /// Nothing is kept that only might be used again.
    Tight,
    /// No request begins.
    High,
    /// No connection begins.
    Full,
}

thread_local! {
    static NOW: Cell<Pressure> = const { Cell::new(Pressure::Calm) };
}

impl Pressure {
    /// With `used` of `limit`.
    #[must_use]
    pub fn of(used: u64, limit: u64) -> Self {
        match used.saturating_mul(100) / limit.max(1) {
            0..85 => Self::Calm,
            85..90 => Self::Tight,
            90..95 => Self::High,
            _ => Self::Full,
        }
    }

    /// As last told on this thread, or as the byte budget is filled, whichever is worse.
    #[must_use]
    pub fn now() -> Self {
        NOW.get().max(Self::of(budget::held() as u64, budget::limit() as u64))
    }

    /// Tells it to everybody on this thread; what it was before.
    pub fn tell(self) -> Self {
        NOW.replace(self)
    }
}

/// How long what rests is kept: while memory is short, not at all.
#[must_use]
pub fn when_tight(rest: Duration) -> Duration {
    if Pressure::now() >= Pressure::Tight { Duration::ZERO } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_begin_at_85_90_and_95_percent() {
        for (used, state) in [
            (0, Pressure::Calm),
            (849, Pressure::Calm),
            (850, Pressure::Tight),
            (900, Pressure::High),
            (950, Pressure::Full),
            (5000, Pressure::Full),
        ] {
            assert_eq!(Pressure::of(used, 1000), state, "{used}");
        }
        assert_eq!(Pressure::of(u64::MAX, 0), Pressure::Full);
    }
}
