//! Refusals in their hundreds become counts: each is still recorded, but not with a line of its own.

use std::{collections::BTreeMap, time::Instant};

use super::record::{Event, Record};
use crate::budget::{Allowance, Budgets};

/// Refusals that are listed one by one, for as long as it lasts: about 800 MiB in a day of uninterrupted attack.
const LISTED: Allowance = Allowance { burst: 200.0, rate: 20.0 };
/// Labels are fixed words; should there be more, they share one.
const MAX_LABELS: usize = 64;

/// Which refusals are listed, and how many were not.
pub(super) struct Flood {
    listed: Budgets<()>,
    counted: BTreeMap<String, Count>,
}

struct Count {
    number: u64,
    /// One of them.
    sample: Record,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        Self { listed: Budgets::new(LISTED, now), counted: BTreeMap::new() }
    }

    /// The record back when it is to be listed.
    pub(super) fn take(&mut self, record: Record, now: Instant) -> Option<Record> {
        if self.listed.take((), 1.0, now).is_ok() {
            return Some(record);
        }
        let mut label = record.label.clone().unwrap_or_default();
        if self.counted.len() >= MAX_LABELS && !self.counted.contains_key(&label) {
            label = "other".to_owned();
        }
        self.counted.entry(label).or_insert(Count { number: 0, sample: record }).number += 1;
        None
    }

    /// What was counted since the last time: one record for each label.
    pub(super) fn counts(&mut self) -> Vec<Record> {
        let counted = std::mem::take(&mut self.counted);
        let record = |(label, Count { number, sample }): (String, Count)| Record {
            event: Event::RefusedMany,
            label: Some(label),
            count: Some(number),
            reason: sample.reason.map(|reason| format!("for example: {reason}")),
            ..sample
        };
        counted.into_iter().map(record).collect()
    }
}
