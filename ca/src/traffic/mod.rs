//! Who talks to whom, from what sidecars have counted: the newest figures of each, added up to edges between workloads.
//!
//! - `counts`: counters, and what lies between two readings of them
//! - `sidecar`: what one sidecar has told, for as long as a window is (pure)
//! - [`view`]: the edges as operators see them, from both ends (pure)
//! - [`inquiries`]: what operators ask of single requests; [`seen`]: one request; [`story`]: what became of one (pure)
//!
//! A sidecar's word counts for its own end only: it can say nothing of what others talk about. Bounded, and gone a moment
//! after the sidecar. Knows neither streams nor names: `discovery` tells, `admin` asks.

mod counts;
pub mod inquiries;
pub mod seen;
mod sidecar;
pub mod story;
pub mod view;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use douane_proto::{id::WorkloadId, wire};

use inquiries::{Inquiries, Inquiry, Sought, Wanted, What};
use sidecar::Sidecar;
use view::{Names, View};

/// The longest window that figures are kept for.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(60);
/// A sidecar that lost its stream is back within this, unless it has died.
const GRACE: Duration = Duration::from_secs(15);
/// Edges of all sidecars: each takes up to 3 KiB while there is traffic on it.
const MOST_EDGES: usize = 100_000;

/// What all sidecars of one control plane have told.
#[derive(Debug, Clone)]
pub struct Traffic {
    known: Arc<Mutex<Known>>,
    inquiries: Inquiries,
}

#[derive(Debug)]
struct Known {
    // By `namespace/pod`.
    sidecars: HashMap<String, Attended>,
    // Of all of them.
    edges: usize,
    most_edges: usize,
    forgot: Option<Instant>,
}

#[derive(Debug)]
struct Attended {
    sidecar: Sidecar,
    streams: usize,
    // When the last stream ended.
    gone: Option<Instant>,
}

/// A sidecar's stream is open as long as this lives.
#[derive(Debug)]
pub struct Telling {
    traffic: Traffic,
    workload: String,
    id: WorkloadId,
    // What the sidecar was asked last.
    asked: wire::Inquiry,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::bounded(MOST_EDGES)
    }
}

impl Traffic {
    fn bounded(most_edges: usize) -> Self {
        let known = Known { sidecars: HashMap::new(), edges: 0, most_edges, forgot: None };
        Self { known: Arc::new(Mutex::new(known)), inquiries: Inquiries::default() }
    }

    /// The sidecar of `workload` (`namespace/pod`) has proven to be `id`, and tells from now on.
    #[must_use]
    pub fn attend(&self, workload: &str, id: &WorkloadId, now: Instant) -> Telling {
        let mut known = self.known();
        if known.forgot.is_none_or(|at| now.saturating_duration_since(at) >= GRACE) {
            known.forget(now);
        }
        let new = || Attended { sidecar: Sidecar::new(id.clone()), streams: 0, gone: None };
        let attended = known.sidecars.entry(workload.to_owned()).or_insert_with(new);
        if attended.sidecar.id != *id {
            attended.sidecar = Sidecar::new(id.clone());
        }
        attended.streams += 1;
        attended.gone = None;
        Telling {
            traffic: self.clone(),
            workload: workload.to_owned(),
            id: id.clone(),
            asked: wire::Inquiry::default(),
        }
    }

    /// How many sidecars are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.known().sidecars.values().filter(|attended| attended.streams > 0).count()
    }

    /// Asks sidecars to tell such requests as they end.
    #[must_use]
    pub fn tap(&self, wanted: Wanted) -> Inquiry {
        self.inquiries.open(What::Tap(wanted))
    }

    /// Asks all sidecars what they remember of this.
    #[must_use]
    pub fn search(&self, sought: Sought) -> Inquiry {
        self.inquiries.open(What::Search(sought))
    }

    /// Waits until something else is asked.
    pub(crate) fn asking(&self) -> Asking {
        Asking(self.inquiries.changes())
    }

    /// Who talks to whom, over the last `window`; `names`: what workloads are called.
    #[must_use]
    pub fn view(&self, window: Duration, names: &Names, now: Instant) -> View {
        let mut known = self.known();
        known.forget(now);
        let told = known.sidecars.values().map(|attended| &attended.sidecar);
        View::of(told, window.min(LONGEST_WINDOW), names, now)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    // Looks over all of them; a stream that opens does not.
    fn forget(&mut self, now: Instant) {
        let is_gone = |at: Instant| now.saturating_duration_since(at) >= GRACE;
        self.sidecars.retain(|_, attended| !attended.gone.is_some_and(is_gone));
        self.edges = self.sidecars.values().map(|attended| attended.sidecar.edges()).sum();
        self.forgot = Some(now);
    }
}

/// Told when operators ask something else.
#[derive(Debug)]
pub(crate) struct Asking(inquiries::Changes);

impl Asking {
    /// Waits for it.
    pub(crate) async fn changed(&mut self) {
        // Its sender lives as long as the control plane.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Telling {
    /// What the sidecar is to be asked, if that is not what it was asked before.
    pub fn asks(&mut self) -> Option<wire::Inquiry> {
        let asked = self.traffic.inquiries.of(&self.id);
        if asked == self.asked {
            return None;
        }
        self.asked.clone_from(&asked);
        Some(asked)
    }

    /// What the sidecar answers.
    pub fn hears(&self, told: &wire::Sightings) {
        self.traffic.inquiries.hear(told, &self.workload, &self.id);
    }

    /// What the sidecar says that it has counted.
    pub fn takes(&self, figures: &wire::Figures, now: Instant) {
        let mut known = self.traffic.known();
        let Known { sidecars, edges, most_edges, .. } = &mut *known;
        if let Some(Attended { sidecar, .. }) = sidecars.get_mut(&self.workload) {
            let before = sidecar.edges();
            sidecar.take(figures, most_edges.saturating_sub(*edges), now);
            *edges = edges.saturating_sub(before) + sidecar.edges();
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let mut known = self.traffic.known();
        if let Some(attended) = known.sidecars.get_mut(&self.workload) {
            attended.streams = attended.streams.saturating_sub(1);
            if attended.streams == 0 {
                attended.gone = Some(Instant::now());
            }
        }
    }
}
