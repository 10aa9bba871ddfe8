//! Hears that something in the folders of resources may have changed, from the kernel where it tells.
//!
//! Knows not what changed (`folder` looks).

use std::{path::Path, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, time};

use super::folder::Folders;

/// Every file is looked at so often even if the kernel reports nothing (network file systems do not).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where the kernel reports nothing at all.
const LOOK_UNWATCHED: Duration = Duration::from_millis(250);
/// After a report, so long nothing more must come: a file is written in several steps.
const SETTLE: Duration = Duration::from_millis(30);
/// But somebody who writes without end does not put off everybody else's law.
const SETTLE_LIMIT: Duration = Duration::from_millis(200);

/// What the kernel reports of folders.
pub(super) struct Notices {
    changes: mpsc::Receiver<()>,
    /// It must live as long as it is to report. `None`: the folders are looked at more often instead.
    watcher: Option<RecommendedWatcher>,
}

impl Notices {
    /// Of these folders, from now on.
    pub(super) fn of(folders: &Folders) -> Self {
        let (heard, changes) = mpsc::channel(1);
        Self { changes, watcher: watch(folders, heard) }
    }

    /// Waits until the folders should be looked at: something was reported, or it is time again, or `ripe` has passed.
    pub(super) async fn wait(&mut self, ripe: Option<Duration>) {
        let look_every = if self.watcher.is_some() { LOOK_EVERY } else { LOOK_UNWATCHED };
        tokio::select! {
            () = time::sleep(ripe.unwrap_or(look_every).min(look_every)) => {}
            Some(()) = self.changes.recv() => self.settle().await,
        }
    }

    async fn settle(&mut self) {
        let limit = time::Instant::now() + SETTLE_LIMIT;
        while let Ok(Some(())) =
            time::timeout_at(limit.min(time::Instant::now() + SETTLE), self.changes.recv()).await
        {
            if time::Instant::now() >= limit {
                return;
            }
        }
    }
}

fn watch(folders: &Folders, heard: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let report = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event, too. One report that waits is enough.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = heard.try_send(());
        }
    };
    let watch = |mut watcher: RecommendedWatcher| {
        folders.paths().try_for_each(|path: &Path| watcher.watch(path, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    };
    notify::recommended_watcher(report)
        .and_then(watch)
        .inspect_err(|error| tracing::warn!(%error, "folders cannot be watched; they are looked at four times a second"))
        .ok()
}
