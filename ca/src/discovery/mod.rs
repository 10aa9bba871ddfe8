//! What the mesh is, and who is told of it: folders of resources, or the objects of a Kubernetes API, become one index,
//! which streams to sidecars look up.
//!
//! The task here waits for its source and makes a new index whenever something changed; it is the index' one writer.

mod assemble;
mod file;
mod folder;
mod index;
mod kept;
mod keys;
mod kubernetes;
mod laws;
mod learned;
mod limits;
mod marks;
mod missed;
mod notes;
mod notice;
mod protocols;
mod publish;
mod settings;
mod slices;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod trust;
mod written;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    jwks::Keyring,
    kubernetes::Client,
    metrics::{self, Metrics, ResourceFigures, Served},
    state::StateFolder,
};
use assemble::{Assembled, assemble};
use folder::Scan;
use index::Law;
use learned::Known;
use settings::Settings;
use source::Source;

pub use index::Index;
pub use learned::Learned;
pub use missed::{Missed, Why};
pub use notes::{LeftOut, Note, Notes};
pub use publish::{DiscoveryService, MAX_REQUEST_BYTES};
pub use source::SourceError;
pub use trust::Trust;

/// A mesh so large that it takes long to be put together is put together less often: never more than half of the time.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Pods without a sidecar that are named in the log at once.
const MOST_MISSED_TOLD: usize = 100;
/// What takes no longer needs no rest.
const QUICK: Duration = Duration::from_millis(20);

/// The resources of one control plane, live.
pub struct Discovery {
    source: Source,
    settings: Settings,
    keyring: Keyring,
    learned: Learned,
    known: watch::Receiver<Known>,
    index: watch::Sender<Arc<Index>>,
    report: watch::Sender<Arc<Report>>,
    notes: watch::Sender<Arc<Notes>>,
    metrics: Arc<Metrics>,
}

/// What was wrong with the resources when they were read last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One line each, with its place.
    pub errors: Vec<String>,
    /// What works otherwise than its author may expect.
    pub warnings: Vec<String>,
    /// What is wrong with where the resources come from.
    pub troubles: Vec<String>,
    /// How many objects are in force.
    pub objects: usize,
    /// How many workloads take new traffic.
    pub ready: usize,
    /// Are policies served?
    pub served: Served,
    /// Pods of a cluster that ought to have a sidecar and have none.
    pub missed: Vec<Missed>,
}

impl Discovery {
    /// Reads the resources for the first time, of `cluster`, or else of the folders that `config` names; the keyring has the
    /// keys of token issuers. What is wrong with them is reported, not returned; of a cluster nothing is known yet.
    ///
    /// # Errors
    /// [`SourceError`] when there is no way to them at all.
    pub fn open(
        state: &StateFolder,
        config: &Config,
        cluster: Option<&Client>,
        (mut keyring, metrics): (Keyring, Arc<Metrics>),
    ) -> Result<Self, SourceError> {
        let mut source = Source::open(state, config, cluster)?;
        let settings = Settings {
            mesh: config.mesh(),
            cluster_domain: config.cluster_domain.clone(),
            law: config.law(),
            marked: source.marked(),
        };
        source.scan(Instant::now());
        let learned = Learned::default();
        let mut known = learned.known();
        let (assembled, report) = read(&source, &mut keyring, &mut known, &settings);
        tell(&Report::default(), &report, &metrics);
        source.keep();
        let notes =
            watch::Sender::new(Arc::new(Notes { written: source.notes(), left_out: assembled.left_out }));
        let index = watch::Sender::new(Arc::new(assembled.index));
        let report = watch::Sender::new(Arc::new(report));
        Ok(Self { source, settings, keyring, learned, known, index, report, notes, metrics })
    }

    /// The mesh, now and whenever it changes.
    #[must_use]
    pub fn index(&self) -> watch::Receiver<Arc<Index>> {
        self.index.subscribe()
    }

    /// The folders that the resources are read from, if they are.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        self.source.folders()
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

    /// What operators wrote in a cluster, now and whenever it, or what is noted about it, changes; what the index holds is as
    /// new.
    #[must_use]
    pub fn notes(&self) -> watch::Receiver<Arc<Notes>> {
        self.notes.subscribe()
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
                "troubles": report.troubles,
                "unmeshedPods": report.missed.len(),
            });
            let not_ready = match report.served {
                Served::Yes => None,
                Served::No => Some("a law is unreadable; see /status"),
            };
            metrics::Status { not_ready, json: json.to_string() }
        }
    }

    /// Takes over what changes, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut learning = self.learned.known();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.source.wait() => {}
                () = self.keyring.changed() => {}
                // Its writer is ours.
                Ok(()) = learning.changed() => {}
            }
            let begun = Instant::now();
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
            let took = begun.elapsed();
            if took > QUICK {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = time::sleep(took.min(LONGEST_REST)) => {}
                }
            }
        }
    }

    fn refresh(&mut self, now: Instant) {
        let scan = self.source.scan(now);
        let has_learned = self.known.has_changed().unwrap_or_default();
        if scan < Scan::Changed && !self.keyring.has_changed() && !has_learned {
            if scan == Scan::Noted {
                let left_out = self.notes.borrow().left_out.clone();
                self.notes.send_replace(Arc::new(Notes { written: self.source.notes(), left_out }));
            }
            return self.source.keep();
        }
        let (assembled, report) = read(&self.source, &mut self.keyring, &mut self.known, &self.settings);
        self.learned.keep(|key| assembled.index.workloads.contains_key(key));
        self.index.send_replace(Arc::new(assembled.index));
        let notes = Notes { written: self.source.notes(), left_out: assembled.left_out };
        self.notes.send_replace(Arc::new(notes));
        let before = self.report.send_replace(Arc::new(report));
        tell(&before, &self.report.borrow(), &self.metrics);
        // After it was published: the law does not wait for the disk.
        self.source.keep();
    }
}

fn read(
    source: &Source,
    keyring: &mut Keyring,
    known: &mut watch::Receiver<Known>,
    settings: &Settings,
) -> (Assembled, Report) {
    let mut loaded = source.loaded();
    let keys = keyring.known();
    keyring.want(keys::fill(&mut loaded.resources, &keys));
    let known = known.borrow_and_update().clone();
    let assembled = assemble(&loaded.resources, &loaded.doubts, &known, settings);
    let mut errors = loaded.errors;
    errors.extend(assembled.errors());
    let served = match assembled.index.law {
        Law::Known => Served::Yes,
        Law::Unknown => Served::No,
    };
    let ready = assembled.index.workloads.values().filter(|it| it.workload.ready).count();
    let warnings = assembled.warnings.clone();
    let troubles = loaded.troubles;
    let missed = assembled.index.missed.clone();
    let report = Report { errors, warnings, troubles, objects: assembled.objects, ready, served, missed };
    (assembled, report)
}

// Each error is logged when it appears, not at each reading.
fn tell(before: &Report, now: &Report, metrics: &Metrics) {
    let known: HashSet<&String> =
        before.errors.iter().chain(&before.warnings).chain(&before.troubles).collect();
    for trouble in now.troubles.iter().filter(|trouble| !known.contains(trouble)) {
        tracing::error!(trouble, "the resources cannot be followed; what was known last stays in force");
    }
    if now.troubles.is_empty() && !before.troubles.is_empty() {
        tracing::info!("the resources are followed again");
    }
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
    tell_missed(&before.missed, &now.missed, metrics);
    tracing::info!(objects = now.objects, errors = now.errors.len(), "resources are in force");
    metrics.resources(ResourceFigures {
        errors: now.errors.len() + now.troubles.len(),
        objects: now.objects,
        served: now.served,
    });
}

// Each pod once; a whole cluster's that was labelled today fills no log.
fn tell_missed(before: &[Missed], now: &[Missed], metrics: &Metrics) {
    let known: HashSet<&Missed> = before.iter().collect();
    let new: Vec<&Missed> = now.iter().filter(|missed| !known.contains(missed)).collect();
    for missed in new.iter().take(MOST_MISSED_TOLD) {
        let (namespace, pod, mend) = (&missed.namespace, &missed.pod, missed.why.mend());
        tracing::warn!(namespace, pod, mend, "a pod that should be in the mesh has no sidecar");
    }
    if let Some(more) = new.len().checked_sub(MOST_MISSED_TOLD).filter(|more| *more > 0) {
        tracing::warn!(more, "and more pods that should be in the mesh have no sidecar");
    }
    metrics.unmeshed(now.iter().map(|missed| (missed.namespace.as_str(), missed.why.name())));
}
