//! The thread that waits for the disk, so that who writes does not: one sync serves all that was written before it. When
//! somebody waits for it, it begins at once, otherwise it gathers for a moment.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{chain::Head, error::AuditError, order::Done, paper::Paper};

/// What nobody waits for is on disk within this and one sync: together under a tenth of a second.
const GATHER: Duration = Duration::from_millis(50);

/// Lines that were written.
pub(super) struct Written {
    pub(super) paper: Arc<dyn Paper>,
    /// The last of them.
    pub(super) head: Head,
    pub(super) waiting: Vec<Done>,
}

/// What is known of the disk. Clones share it.
#[derive(Clone)]
pub(super) struct Disk(Arc<State>);

struct State {
    head: Mutex<Head>,
    failed: AtomicBool,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self(Arc::new(State { head: Mutex::new(Head::START), failed: AtomicBool::new(false) }))
    }

    /// The last line that the disk has.
    pub(super) fn head(&self) -> Head {
        *self.0.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, head: Head) {
        *self.0.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    pub(super) fn take_failure(&self) -> bool {
        self.0.failed.swap(false, Ordering::AcqRel)
    }

    /// Syncs what comes until nobody writes any more.
    pub(super) fn run(self, written: &Receiver<Written>) {
        while let Ok(first) = written.recv() {
            let Written { mut paper, mut head, mut waiting } = first;
            let end = Instant::now() + GATHER;
            loop {
                let left = if waiting.is_empty() {
                    end.saturating_duration_since(Instant::now())
                } else {
                    // Somebody waits: only what has come meanwhile is taken along.
                    Duration::ZERO
                };
                match written.recv_timeout(left) {
                    Ok(mut next) => {
                        // A file is synced before another one takes its place.
                        (paper, head) = (next.paper, next.head);
                        waiting.append(&mut next.waiting);
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            let outcome = self.sync(&*paper, head);
            for done in waiting {
                let _ = done.send(outcome.clone());
            }
        }
    }

    fn sync(&self, paper: &dyn Paper, head: Head) -> Result<(), AuditError> {
        let synced: io::Result<()> = paper.sync();
        match synced {
            Ok(()) => {
                self.holds(head);
                Ok(())
            }
            Err(error) => {
                // What the kernel could not write it may drop, and say yes the next time: the log is opened anew.
                self.0.failed.store(true, Ordering::Release);
                Err(AuditError::writing(&error))
            }
        }
    }
}
