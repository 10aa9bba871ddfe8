//! A metric with labels whose number of series is capped: past the cap new label sets are counted together as `other`,
//! so that no peer and no policy can make the sidecar's memory or the scrape grow without a bound.

use std::{cell::Cell, fmt::Debug, hash::Hash};

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
    count: Cell<usize>,
}

impl<S, M, C> Series<S, M, C>
where
    S: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
    M: EncodeMetric + TypedMetric + Debug + Send + Sync + 'static,
    C: MetricConstructor<M> + Clone + Debug + Send + Sync + 'static,
{
    /// Registers the metric; `other` takes what is past the cap.
    pub(crate) fn register(registry: &mut Registry, name: &str, help: &str, new: C, other: S) -> Self {
        let family = Family::new_with_constructor(new);
        registry.register(name, help, family.clone());
        Self { family, other, count: Cell::new(0) }
    }

    /// Does something with the series of these labels.
    pub(crate) fn of<R>(&self, labels: &S, act: impl FnOnce(&M) -> R) -> R {
        if let Some(metric) = self.family.get(labels) {
            return act(&metric);
        }
        if self.count.get() == MOST_SERIES {
            return act(&self.family.get_or_create(&self.other));
        }
        self.count.set(self.count.get() + 1);
        act(&self.family.get_or_create(labels))
    }
}

/// Of one metric; a histogram has 17 lines for each.
pub(crate) const MOST_SERIES: usize = 500;
