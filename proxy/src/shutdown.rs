//! Are we draining? The third live value: written by signals and the admin socket, read by everything that waits.
//!
//! Knows nothing of what is drained. The order (not ready, inbound, outbound, telemetry) is the application's.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long tasks get to notice that they were told to drop what they do.
const NOTICE: Duration = Duration::from_millis(500);

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

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All tasks came to their own end.
    Whole,
    /// Some were dropped.
    Cut,
}

/// The wish to end: once asked, we drain; asked again, we end at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Cancelled by the first wish.
    pub asked: CancellationToken,
    /// Cancelled by the second.
    pub now: CancellationToken,
}

impl Shutdown {
    /// Begins draining and waits for its end, for `limit` at most; then drops what is left.
    pub async fn finish(&self, limit: Duration) -> Drained {
        self.draining.cancel();
        self.tasks.close();
        let whole = tokio::select! {
            () = self.tasks.wait() => true,
            () = tokio::time::sleep(limit) => false,
            () = self.forced.cancelled() => false,
        };
        self.forced.cancel();
        let _ = tokio::time::timeout(NOTICE, self.tasks.wait()).await;
        if whole { Drained::Whole } else { Drained::Cut }
    }
}

impl Stop {
    /// Asks once more.
    pub fn ask(&self) {
        if self.asked.is_cancelled() {
            self.now.cancel();
        }
        self.asked.cancel();
    }

    /// Turns SIGTERM and SIGINT into wishes, for ever.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub async fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let received = tokio::select! {
                received = terminate.recv() => received,
                received = interrupt.recv() => received,
            };
            if received.is_none() {
                return Ok(());
            }
            self.ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_tasks_that_end() {
        let shutdown = Shutdown::default();
        let draining = shutdown.draining.clone();
        shutdown.tasks.spawn(async move { draining.cancelled().await });
        assert_eq!(shutdown.finish(Duration::from_secs(30)).await, Drained::Whole);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_dropped_at_the_deadline() {
        let shutdown = Shutdown::default();
        let forced = shutdown.forced.clone();
        let task = shutdown.tasks.spawn(async move { forced.cancelled().await });
        let began = tokio::time::Instant::now();
        assert_eq!(shutdown.finish(Duration::from_secs(30)).await, Drained::Cut);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert!(task.is_finished());
    }

    #[test]
    fn the_second_wish_ends_at_once() {
        let stop = Stop::default();
        stop.ask();
        assert!(stop.asked.is_cancelled() && !stop.now.is_cancelled());
        stop.ask();
        assert!(stop.now.is_cancelled());
    }
}
