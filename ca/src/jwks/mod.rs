//! The key sets of token issuers, live: fetched once for the whole mesh, refreshed, and the last good one kept for each
//! place that one is fetched from. No set ever stands in for another.
//!
//! Knows not which tokens they verify, nor who is sent them (`discovery` says which are wanted, and takes what is known).
//! - `source`: the life of one key set; `document`: from what was fetched to what sidecars receive; `kept`: what outlives us

mod document;
mod kept;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use douane_proto::resource::KeySource;
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    fetch::Guard,
    metrics::{KeySetState, Metrics},
};
use source::Source;

pub use kept::Kept;

/// More places than this are not asked: each one is a task, and each set travels to many sidecars.
const MAX_SOURCES: usize = 256;
/// Fetches at once.
const MAX_FETCHES: usize = 16;

/// Where key sets come from, and how long one fetch may take.
pub type Wanted = BTreeMap<KeySource, Duration>;

/// The key sets that are known, as sidecars receive them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeySets(BTreeMap<KeySource, Arc<str>>);

/// How key sets are fetched.
pub struct Terms {
    /// Which addresses may be dialled.
    pub guard: Guard,
    /// Who is trusted to answer `https` URLs; `None` when there is nobody.
    pub tls: Option<TlsConnector>,
    /// How often each set is fetched anew.
    pub refresh_every: Duration,
    /// How long a set counts that can no longer be fetched.
    pub keep_for: Duration,
    /// What the last control plane fetched.
    pub kept: Kept,
}

/// Fetches what is wanted.
pub struct Fetcher {
    shared: Arc<Shared>,
    wanted: watch::Receiver<Arc<Wanted>>,
    /// Of sets that an earlier control plane fetched, until it is known whether they are wanted.
    ages: BTreeMap<KeySource, Duration>,
}

/// The other end: says what is wanted, and sees what is known.
pub struct Keyring {
    wanted: watch::Sender<Arc<Wanted>>,
    sets: watch::Receiver<Arc<KeySets>>,
}

// A key set that is kept up to date.
struct Running {
    timeout: watch::Sender<Duration>,
    task: AbortHandle,
}

struct Shared {
    terms: Terms,
    sets: watch::Sender<Arc<KeySets>>,
    places: Semaphore,
    metrics: Arc<Metrics>,
}

impl KeySets {
    /// The set of one place, if one is known.
    #[must_use]
    pub fn get(&self, source: &KeySource) -> Option<&str> {
        self.0.get(source).map(|set| &**set)
    }
}

impl Keyring {
    /// Says what is wanted from now on.
    pub(crate) fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|before| {
            let is_other = **before != wanted;
            if is_other {
                *before = Arc::new(wanted);
            }
            is_other
        });
    }

    /// What is known now; a later change is then seen by [`Keyring::changed`].
    pub(crate) fn known(&mut self) -> Arc<KeySets> {
        Arc::clone(&self.sets.borrow_and_update())
    }

    /// Is more known, or less, than when somebody looked last?
    pub(crate) fn has_changed(&self) -> bool {
        self.sets.has_changed().unwrap_or_default()
    }

    /// Waits until more is known, or less, than when somebody looked last.
    pub(crate) async fn changed(&mut self) {
        if self.sets.changed().await.is_err() {
            // Nobody fetches any more: nothing will ever change.
            std::future::pending::<()>().await;
        }
        self.sets.mark_changed();
    }
}

impl Fetcher {
    /// One that fetches on these terms, and its other end. What was fetched before is known from the start.
    #[must_use]
    pub fn new(terms: Terms, metrics: Arc<Metrics>) -> (Self, Keyring) {
        let (wanted, wanted_seen) = watch::channel(Arc::default());
        let kept = terms.kept.load(terms.keep_for);
        let ages = kept.iter().map(|(source, kept)| (source.clone(), kept.age)).collect();
        let known = kept.into_iter().map(|(source, kept)| (source, kept.set.into())).collect();
        let (sets, sets_seen) = watch::channel(Arc::new(KeySets(known)));
        let shared = Shared { terms, sets, places: Semaphore::new(MAX_FETCHES), metrics };
        (Self { shared: Arc::new(shared), wanted: wanted_seen, ages }, Keyring { wanted, sets: sets_seen })
    }

    /// Keeps what is wanted up to date until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut running: HashMap<KeySource, Running> = HashMap::new();
        loop {
            let wanted = Arc::clone(&self.wanted.borrow_and_update());
            self.keep_wanted(&mut running, &wanted);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.wanted.changed() => if changed.is_err() { break },
            }
        }
        for one in running.into_values() {
            one.task.abort();
        }
    }

    // Those that run stay where there are too many: who comes later must not take their place.
    fn keep_wanted(&mut self, running: &mut HashMap<KeySource, Running>, wanted: &Wanted) {
        running.retain(|source, one| {
            let stays = wanted.contains_key(source);
            if !stays {
                one.task.abort();
                self.shared.forget(source);
            }
            stays
        });
        let mut left_out = 0_usize;
        for (source, timeout) in wanted {
            if let Some(one) = running.get(source) {
                one.timeout.send_replace(*timeout);
            } else if running.len() < MAX_SOURCES {
                let (sender, timeout) = watch::channel(*timeout);
                let age = self.ages.remove(source);
                let task = Source::new(source.clone(), age, timeout, Arc::clone(&self.shared)).run();
                let task = tokio::spawn(task).abort_handle();
                running.insert(source.clone(), Running { timeout: sender, task });
            } else {
                left_out += 1;
            }
        }
        for source in std::mem::take(&mut self.ages).into_keys() {
            self.shared.forget(&source);
        }
        if left_out > 0 {
            tracing::error!(
                wanted = wanted.len(),
                most = MAX_SOURCES,
                "too many key sets are wanted; tokens of the rest are refused"
            );
        }
    }
}

impl Shared {
    fn publish(&self, source: &KeySource, set: &str) {
        self.sets.send_if_modified(|known| {
            if known.get(source) == Some(set) {
                return false;
            }
            Arc::make_mut(known).0.insert(source.clone(), set.into());
            true
        });
        self.metrics.key_set(place(source), KeySetState::Good);
    }

    fn drop_set(&self, source: &KeySource) {
        self.sets.send_if_modified(|known| {
            known.get(source).is_some() && Arc::make_mut(known).0.remove(source).is_some()
        });
        let (kept, source) = (self.terms.kept.clone(), source.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = kept.forget(&source) {
                tracing::error!(%error, keys = place(&source), "a kept key set cannot be removed");
            }
        });
    }

    fn forget(&self, source: &KeySource) {
        self.drop_set(source);
        self.metrics.forget_key_set(place(source));
    }
}

/// Where a key set comes from, as operators wrote it.
fn place(source: &KeySource) -> &str {
    match source {
        KeySource::Inline => "",
        KeySource::Set(url) | KeySource::Configuration(url) => url,
    }
}
