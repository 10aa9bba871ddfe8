//! A metric with labels whose number of series is capped: past the cap new label sets are counted together as `other`,
//! so that no peer and no policy can make the sidecar's memory or the scrape grow without a bound.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt::Debug,
    hash::{BuildHasherDefault, Hash, Hasher},
};

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
    // The family's own, found without its lock and without a hash that must withstand strangers.
    known: RefCell<HashMap<S, M, BuildHasherDefault<Quick>>>,
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

/// Multiplies and turns, eight bytes at a time. Whoever finds collisions slows down a table of [`MOST_SERIES`] at most.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        // The table looks at the highest bits and at the lowest.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(piece) {
                *to = *from;
            }
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// Of one metric; a histogram has 17 lines for each.
pub(crate) const MOST_SERIES: usize = 500;
