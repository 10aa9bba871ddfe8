//! Are we draining? The third live value: written by signals and the admin socket, read by everything that waits.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Draining (finish what runs, take nothing new), then forced (drop what is left).
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled when draining begins.
    pub draining: CancellationToken,
    /// Cancelled when the deadline has passed, or by a second signal.
    pub forced: CancellationToken,
    /// Every task that serves traffic is spawned here (`tasks.spawn_local`), so that draining can wait for it.
    pub tasks: TaskTracker,
}
