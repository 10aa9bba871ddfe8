//! Refused handshakes come as often as a stranger likes: of each kind only some are told in a second.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// One window for each refusal label; labels are fixed, so it cannot grow.
#[derive(Debug, Default)]
pub(crate) struct Flood(HashMap<&'static str, Window>);

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    suppressed: u64,
}

impl Flood {
    /// May one more be told? If so: how many were not told since the last one.
    pub(crate) fn admits(&mut self, refusal: &'static str, now: Instant) -> Option<u64> {
        let window = self.0.entry(refusal).or_insert(Window { since: now, told: 0, suppressed: 0 });
        if now.duration_since(window.since) >= WINDOW {
            (window.since, window.told) = (now, 0);
        }
        if window.told == MOST_TOLD {
            window.suppressed += 1;
            return None;
        }
        window.told += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

const WINDOW: Duration = Duration::from_secs(1);
// Lines of one kind in a second; enough to see who knocks.
const MOST_TOLD: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_count_is_told_with_the_next_line() {
        let (mut flood, start) = (Flood::default(), Instant::now());

        let told = (0..100).filter(|_| flood.admits("plaintext", start).is_some()).count();

        assert_eq!(told, 20);
        assert_eq!(flood.admits("expired", start), Some(0), "another kind has its own window");
        assert_eq!(flood.admits("plaintext", start + WINDOW), Some(80));
        assert_eq!(flood.admits("plaintext", start + WINDOW), Some(0));
    }
}
