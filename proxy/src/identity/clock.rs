//! The wall clock, which certificates live by. Timers do not: they use tokio's.

use std::time::{Duration, SystemTime};

/// Since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
