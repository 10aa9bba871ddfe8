//! What the mesh is, and who is told of it: folders of resources become one index, which streams to sidecars look up.
//!
//! The task here watches the folders and makes a new index whenever something changed; it is the index' one writer.

mod assemble;
mod file;
mod folder;
mod index;
mod kept;
mod keys;
mod laws;
mod learned;
mod limits;
mod protocols;
mod publish;
mod stream;
#[cfg(test)]
mod tests;
mod trust;
mod written;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    jwks::Keyring,
    metrics::{self, Metrics, ResourceFigures, Served},
    state::StateFolder,
};
use assemble::{Assembled, Settings, assemble};
use folder::{Folders, Scan};
use index::Law;
use kept::Kept;
use learned::Known;

pub use index::Index;
pub use learned::Learned;
pub use publish::{DiscoveryService, MAX_REQUEST_BYTES};
pub use trust::Trust;

/// Every file is looked at so often even if the kernel reports nothing (network file systems do not).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where the kernel reports nothing at all.
const LOOK_UNWATCHED: Duration = Duration::from_millis(250);
/// After a report, so long nothing more must come: a file is written in several steps.
const SETTLE: Duration = Duration::from_millis(30);
/// But somebody who writes without end does not put off everybody else's law.
const SETTLE_LIMIT: Duration = Duration::from_millis(200);

/// The resources of one control plane, live.
pub struct Discovery {
    folders: Folders,
    settings: Settings,
    keyring: Keyring,
    learned: Learned,
    known: watch::Receiver<Known>,
    index: watch::Sender<Arc<Index>>,
    report: watch::Sender<Arc<Report>>,
    metrics: Arc<Metrics>,
}

/// What was wrong with the resources when they were read last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One line each, with file and line.
    pub errors: Vec<String>,
    /// What works otherwise than its author may expect.
    pub warnings: Vec<String>,
    /// How many objects are in force.
    pub objects: usize,
    /// How many workloads take new traffic.
    pub ready: usize,
    /// Are policies served?
    pub served: Served,
}

impl Discovery {
    /// Reads the folders of `config` for the first time; `keyring` has the keys of token issuers. Errors in files are
    /// reported, not returned.
    ///
    /// # Errors
    /// When a folder's path cannot be made absolute.
    pub fn open(
        state: &StateFolder,
        config: &Config,
        mut keyring: Keyring,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let settings = Settings {
            mesh: config.mesh(),
            cluster_domain: config.cluster_domain.clone(),
            law: config.law(),
        };
        let mut folders = Folders::new(&config.resources, Kept::new(state))?;
        folders.scan(Instant::now());
        let learned = Learned::default();
        let mut known = learned.known();
        let (assembled, report) = read(&folders, &mut keyring, &mut known, &settings);
        tell(&Report::default(), &report, &metrics);
        folders.keep();
        let index = watch::Sender::new(Arc::new(assembled.index));
        let report = watch::Sender::new(Arc::new(report));
        Ok(Self { folders, settings, keyring, learned, known, index, report, metrics })
    }

    /// The mesh, now and whenever it changes.
    #[must_use]
    pub fn index(&self) -> watch::Receiver<Arc<Index>> {
        self.index.subscribe()
    }

    /// The folders that the resources are read from.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        self.folders.paths().map(Path::to_owned).collect()
    }

    /// Where sidecars tell what they have learned.
    #[must_use]
    pub fn learned(&self) -> Learned {
        self.learned.clone()
    }

    /// What is wrong with the resources, now and whenever that changes.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    /// For the status page.
    pub fn status(&self) -> impl Fn() -> metrics::Status + Clone + Send + use<> {
        let report = self.report.subscribe();
        move || {
            let report = report.borrow();
            let json = serde_json::json!({
                "policiesServed": report.served == Served::Yes,
                "objects": report.objects,
                "readyWorkloads": report.ready,
                "errors": report.errors,
                "warnings": report.warnings,
            });
            metrics::Status { served: report.served, json: json.to_string() }
        }
    }

    /// Takes over what changes in the folders, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let (heard, mut changes) = mpsc::channel(1);
        let watching = watch_folders(&self.folders, heard);
        let mut learning = self.learned.known();
        let look_every = if watching.is_some() { LOOK_EVERY } else { LOOK_UNWATCHED };
        loop {
            let next = self.folders.ripe_at().map(|at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(next.unwrap_or(look_every).min(look_every)) => {}
                Some(()) = changes.recv() => settle(&mut changes).await,
                () = self.keyring.changed() => {}
                // Its writer is ours.
                Ok(()) = learning.changed() => {}
            }
            // Reading and the disk are slow: off the reactor.
            let refreshed = tokio::task::spawn_blocking(move || {
                self.refresh(Instant::now());
                self
            });
            self = match refreshed.await {
                Ok(refreshed) => refreshed,
                Err(error) => {
                    tracing::error!(%error, "the resources could not be read");
                    return;
                }
            };
        }
    }

    fn refresh(&mut self, now: Instant) {
        let scan = self.folders.scan(now);
        let has_learned = self.known.has_changed().unwrap_or_default();
        if scan == Scan::Same && !self.keyring.has_changed() && !has_learned {
            return self.folders.keep();
        }
        let (assembled, report) = read(&self.folders, &mut self.keyring, &mut self.known, &self.settings);
        self.learned.keep(|key| assembled.index.workloads.contains_key(key));
        self.index.send_replace(Arc::new(assembled.index));
        let before = self.report.send_replace(Arc::new(report));
        tell(&before, &self.report.borrow(), &self.metrics);
        // After it was published: the law does not wait for the disk.
        self.folders.keep();
    }
}

fn read(
    folders: &Folders,
    keyring: &mut Keyring,
    known: &mut watch::Receiver<Known>,
    settings: &Settings,
) -> (Assembled, Report) {
    let mut loaded = folders.loaded();
    let keys = keyring.known();
    keyring.want(keys::fill(&mut loaded.resources, &keys));
    let known = known.borrow_and_update().clone();
    let assembled = assemble(&loaded.resources, &loaded.doubts, &known, settings);
    let mut errors = loaded.errors;
    errors.extend(assembled.errors.iter().cloned());
    let served = match assembled.index.law {
        Law::Known => Served::Yes,
        Law::Unknown => Served::No,
    };
    let ready = assembled.index.workloads.values().filter(|it| it.workload.ready).count();
    let warnings = assembled.warnings.clone();
    let report = Report { errors, warnings, objects: assembled.objects, ready, served };
    (assembled, report)
}

// Each error is logged when it appears, not at each reading.
fn tell(before: &Report, now: &Report, metrics: &Metrics) {
    let known: HashSet<&String> = before.errors.iter().chain(&before.warnings).collect();
    for error in now.errors.iter().filter(|error| !known.contains(error)) {
        tracing::error!(error, "a resource is refused; what was good last stays");
    }
    for warning in now.warnings.iter().filter(|warning| !known.contains(warning)) {
        tracing::warn!(warning, "a resource may not do what its author expects");
    }
    if now.served == Served::No && before.served == Served::Yes {
        tracing::error!(
            "no policies are served: of a law that cannot be read it is not known whom it governs"
        );
    }
    tracing::info!(objects = now.objects, errors = now.errors.len(), "resources are in force");
    metrics.resources(ResourceFigures { errors: now.errors.len(), objects: now.objects, served: now.served });
}

// The watcher must live as long as it is to report. `None`: the folders are looked at more often instead.
fn watch_folders(folders: &Folders, heard: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
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

async fn settle(changes: &mut mpsc::Receiver<()>) {
    let limit = time::Instant::now() + SETTLE_LIMIT;
    while let Ok(Some(())) = time::timeout_at(limit.min(time::Instant::now() + SETTLE), changes.recv()).await
    {
        if time::Instant::now() >= limit {
            return;
        }
    }
}
