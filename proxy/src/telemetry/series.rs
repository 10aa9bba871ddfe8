//! A metric with labels whose number of series is capped: past the cap new label sets are counted together as `other`,
//! so that no peer and no policy can make the sidecar's memory or the scrape grow without a bound.

use std::{cell::RefCell, collections::HashMap, fmt::Debug, hash::Hash};

use foldhash::fast::RandomState;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{
        TypedMetric,
        family::{Family, MetricConstructor},
    },
    registry::Registry,
};

/// Series of one metric by label set.
#[derive(Debug)]
pub(crate) struct Series<S, M, C = fn() -> M> {
    family: Family<S, M, C>,
    other: S,
    // The family's own, found without its lock, by a cheaper hash.
    known: RefCell<HashMap<S, M, RandomState>>,
}

impl<S, M, C> Series<S, M, C>
where
    S: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
    M: Clone + EncodeMetric + TypedMetric + Debug + Send + Sync + 'static,
    C: MetricConstructor<M> + Clone + Debug + Send + Sync + 'static,
{
    /// Registers the metric; `other` takes what is past the cap.
    pub(crate) fn register(registry: &mut Registry, name: &str, help: &str, new: C, other: S) -> Self {
        let family = Family::new_with_constructor(new);
        registry.register(name, help, family.clone());
        Self { family, other, known: RefCell::default() }
    }

    /// Does something with the series of these labels.
    pub(crate) fn of<R>(&self, labels: &S, act: impl FnOnce(&M) -> R) -> R {
        if let Some(metric) = self.known.borrow().get(labels) {
            return act(metric);
        }
        let mut known = self.known.borrow_mut();
        if known.len() == MOST_SERIES {
            return act(&self.family.get_or_create_owned(&self.other));
        }
        let metric = self.family.get_or_create_owned(labels);
        act(known.entry(labels.clone()).or_insert(metric))
    }
}

/// Of one metric; a histogram has 17 lines for each.
pub(crate) const MOST_SERIES: usize = 500;
