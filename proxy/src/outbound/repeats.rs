//! How much may be said again: a fifth of what was said in the last ten seconds, and ten a second on top. Pure: the clock
//! is an argument.
//!
//! So a service that fails gets at most a fifth more of what it cannot bear, and a quiet one is still asked twice.

use std::time::Instant;

/// Seconds that are looked back.
const WINDOW: usize = 10;
/// Of what was said.
const SHARE: f64 = 0.2;
/// Each second, however little was said.
const A_SECOND: u32 = 10;

/// What was said, and said again, in each of the last seconds.
#[derive(Debug)]
pub struct Budget {
    start: Instant,
    seconds: [Second; WINDOW],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    // Counted from the start.
    number: u64,
    said: u32,
    again: u32,
}

impl Budget {
    /// With nothing said before `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { start: now, seconds: [Second::default(); WINDOW] }
    }

    /// A request was said for the first time.
    pub fn said(&mut self, now: Instant) {
        if let Some(second) = self.second(now) {
            second.said = second.said.saturating_add(1);
        }
    }

    /// May one be said again? Then it counts as said again.
    pub fn may_repeat(&mut self, now: Instant) -> bool {
        let newest = now.saturating_duration_since(self.start).as_secs();
        let (mut said, mut again) = (0, 0);
        for second in self.seconds.iter().filter(|second| second.number + WINDOW as u64 > newest) {
            said += second.said;
            again += second.again;
        }
        let most = f64::from(said) * SHARE + f64::from(A_SECOND) * WINDOW as f64;
        let may = f64::from(again) < most;
        if let Some(second) = self.second(now).filter(|_| may) {
            second.again += 1;
        }
        may
    }

    fn second(&mut self, now: Instant) -> Option<&mut Second> {
        let number = now.saturating_duration_since(self.start).as_secs();
        let second = self.seconds.get_mut(usize::try_from(number).ok()? % WINDOW)?;
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn repeated(budget: &mut Budget, now: Instant) -> usize {
        (0..100_000).take_while(|_| budget.may_repeat(now)).count()
    }

    #[test]
    fn the_quiet_have_ten_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(start);

        assert_eq!(repeated(&mut budget, start), 100);
        assert_eq!(repeated(&mut budget, start + Duration::from_secs(9)), 0);
        assert_eq!(repeated(&mut budget, start + Duration::from_secs(10)), 100);
    }

    #[test]
    fn the_busy_have_a_fifth_on_top() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..1000 {
            budget.said(start);
        }

        assert_eq!(repeated(&mut budget, start + Duration::from_secs(3)), 300);
    }

    #[test]
    fn what_was_said_long_ago_buys_nothing() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..1000 {
            budget.said(start);
        }

        assert_eq!(repeated(&mut budget, start + Duration::from_secs(60)), 100);
    }
}
