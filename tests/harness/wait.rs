//! Waiting for what must become true, with a bound.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` finds something, at most `limit`.
///
/// # Panics
/// When it never does; the message says what was awaited and what was seen last.
pub fn eventually<T>(awaited: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= until => {
                panic!("{awaited}: not within {limit:?}; last seen: {seen}")
            }
            Err(_) => std::thread::park_timeout(EVERY),
        }
    }
}
