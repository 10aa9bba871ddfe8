//! Looks at the memory that is left, again and again, and tells everybody on this thread.

use std::time::Duration;

use crate::{budget::memory::Memory, limits::pressure::Pressure};

/// How often it is looked at; a sidecar that is flooded fills some ten MiB a second.
const LOOK: Duration = Duration::from_millis(500);

/// Looks at it for ever. `changed` hears of each change.
pub async fn watch(memory: Option<Memory>, changed: impl Fn(Pressure)) {
    let Some(memory) = memory else { return std::future::pending().await };
    loop {
        let now = memory.used().map_or(Pressure::Calm, |used| Pressure::of(used, memory.limit()));
        if now.tell() != now {
            changed(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}
