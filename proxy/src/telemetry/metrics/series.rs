//! A metric with labels whose number of series is capped: past the cap new label sets are counted together as `other`,
//! so that no peer and no policy can make the sidecar's memory or the scrape grow without a bound. A series that nothing
//! touched between two sweeps is forgotten, so that callers of yesterday do not fill the places of today's.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
};

use foldhash::fast::RandomState;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{
        TypedMetric,
        counter::Counter,
        family::{Family, MetricConstructor},
    },
    registry::Registry,
};

/// Series of one metric by label set.
#[derive(Debug)]
pub(super) struct Series<S, M, C = fn() -> M> {
    family: Family<S, M, C>,
    other: S,
    // The family's own, found without its lock, by a cheaper hash.
    known: RefCell<HashMap<S, Known<M>, RandomState>>,
    overflow: Counter,
}

#[derive(Debug)]
struct Known<M> {
    metric: M,
    is_fresh: Cell<bool>,
}

/// Where series are registered, and what all of them share.
pub(super) struct Shelf<'a> {
    pub(super) registry: &'a mut Registry,
    /// Counts what was counted as `other`.
    pub(super) overflow: &'a Counter,
}

impl<S, M, C> Series<S, M, C>
where
    S: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
    M: Clone + EncodeMetric + TypedMetric + Debug + Send + Sync + 'static,
    C: MetricConstructor<M> + Clone + Debug + Send + Sync + 'static,
{
    /// Registers the metric; `other` takes what is past the cap.
    pub(super) fn register(shelf: &mut Shelf<'_>, name: &str, help: &str, new: C, other: S) -> Self {
        let family = Family::new_with_constructor(new);
        shelf.registry.register(name, help, family.clone());
        Self { family, other, known: RefCell::default(), overflow: shelf.overflow.clone() }
    }

    /// Does something with the series of these labels.
    pub(super) fn of<R>(&self, labels: &S, act: impl FnOnce(&M) -> R) -> R {
        if let Some(known) = self.known.borrow().get(labels) {
            known.is_fresh.set(true);
            return act(&known.metric);
        }
        let mut known = self.known.borrow_mut();
        if known.len() == MOST_SERIES {
            self.overflow.inc();
            return act(&self.family.get_or_create_owned(&self.other));
        }
        let metric = self.family.get_or_create_owned(labels);
        let known = known.entry(labels.clone()).or_insert(Known { metric, is_fresh: Cell::new(true) });
        act(&known.metric)
    }

    /// Shows it from the start: a counter that appears with its first event hides that event from `increase`.
    pub(super) fn show(&self, labels: &S) {
        self.of(labels, |_| ());
    }

    /// Forgets what was not touched since the last sweep.
    pub(super) fn sweep(&self) {
        self.known.borrow_mut().retain(|labels, known| {
            let keep = known.is_fresh.replace(false);
            if !keep {
                self.family.remove(labels);
            }
            keep
        });
    }
}

/// Of one metric; a histogram has 17 lines for each.
pub(super) const MOST_SERIES: usize = 500;
