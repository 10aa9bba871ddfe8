//! What one sidecar has told: its counters as they are now, and what was added within the longest window.
//!
//! Counters only grow within an epoch: to hear the same twice, or again after a lost stream, adds nothing. Pure.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::{id::WorkloadId, wire};

use super::{LONGEST_WINDOW, counts::Counts};

/// A sidecar keeps 256 itself, and those past that as two.
const MOST_EDGES: usize = 300;
/// `namespace/name` of a service.
const MAX_SERVICE_BYTES: usize = 320;
/// A sidecar tells every five seconds, and in parts only what does not fit at once.
const FINEST: Duration = Duration::from_secs(1);
/// A sidecar forgets an edge after two idle hours, and says so; that word may be lost.
const FORGOTTEN: Duration = Duration::from_secs(3 * 3600);
/// As many as the longest window has, told that finely, and some more.
const MOST_SAMPLES: usize = 64;

/// One sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) id: WorkloadId,
    epoch: Option<u64>,
    // When it told, oldest first: the last ones within the longest window, and one before.
    told: VecDeque<Instant>,
    edges: HashMap<Key, Counted>,
    left_out: bool,
}

/// What an edge is between, beside the sidecar's own workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) outbound: bool,
    pub(super) mtls: bool,
    pub(super) peer: Option<WorkloadId>,
    pub(super) service: Option<Arc<str>>,
    pub(super) other: bool,
}

/// An edge's counters.
#[derive(Debug)]
pub(super) struct Counted {
    /// Since the sidecar began.
    pub(super) total: Counts,
    pub(super) streams_open: u64,
    added: VecDeque<(Instant, Counts)>,
    heard: Instant,
}

/// The part of what was told that a window covers, rounded up to whole reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered {
    after: Instant,
    /// At least a millisecond.
    pub(super) length: Duration,
}

impl Sidecar {
    pub(super) fn new(id: WorkloadId) -> Self {
        Self { id, epoch: None, told: VecDeque::new(), edges: HashMap::new(), left_out: false }
    }

    /// Takes over what it says; `room`: for so many edges that were not known before.
    pub(super) fn take(&mut self, figures: &wire::Figures, mut room: usize, now: Instant) {
        if self.epoch != Some(figures.epoch) {
            let began = now.checked_sub(Duration::from_millis(figures.age));
            *self = Self { epoch: Some(figures.epoch), ..Self::new(self.id.clone()) };
            // One that has just begun has counted all of it just now.
            self.told.extend(began.filter(|began| now.duration_since(*began) <= LONGEST_WINDOW));
        }
        // What one that is not known has counted so far, it has counted at any time.
        let is_known = !self.told.is_empty();
        for edge in &figures.edges {
            let Some(key) = Key::told(edge) else { continue };
            if edge.gone {
                self.edges.remove(&key);
                continue;
            }
            if !self.edges.contains_key(&key) && (room == 0 || self.edges.len() >= MOST_EDGES) {
                self.left_out = true;
                continue;
            }
            let total = Counts::told(edge);
            let counted = self.edges.entry(key).or_insert_with(|| {
                room = room.saturating_sub(1);
                let before = if is_known { Counts::default() } else { total };
                Counted { total: before, streams_open: 0, added: VecDeque::new(), heard: now }
            });
            // It was forgotten and has begun anew, and the word of that was lost.
            let is_new = counted.total.is_beyond(&total);
            let added = if is_new { total } else { total.since(&counted.total) };
            counted.heard = now;
            counted.add(now, added);
            (counted.total, counted.streams_open) = (total, edge.streams_open);
        }
        if !figures.more {
            self.told.push_back(now);
            if self.told.len() > MOST_SAMPLES {
                self.told.pop_front();
            }
            self.forget(now);
        }
    }

    /// How many edges it has.
    pub(super) fn edges(&self) -> usize {
        self.edges.len()
    }

    /// Were some of them too many?
    pub(super) fn left_out(&self) -> bool {
        self.left_out
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &Counted)> {
        self.edges.iter()
    }

    /// What of its telling the last `window` covers; `None`: it has told nothing within.
    pub(super) fn covered(&self, window: Duration, now: Instant) -> Option<Covered> {
        let last = *self.told.back()?;
        let is_before = |at: &&Instant| now.saturating_duration_since(**at) >= window;
        let after = *self.told.iter().rev().find(is_before).or_else(|| self.told.front())?;
        let length = last.saturating_duration_since(after);
        (!length.is_zero()).then_some(Covered { after, length: length.max(Duration::from_millis(1)) })
    }

    fn forget(&mut self, now: Instant) {
        let is_told_of = |counted: &Counted| {
            counted.streams_open > 0 || now.saturating_duration_since(counted.heard) < FORGOTTEN
        };
        self.edges.retain(|_, counted| is_told_of(counted));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= LONGEST_WINDOW;
        while self.told.get(1).is_some_and(is_old) {
            self.told.pop_front();
        }
        let Some(oldest) = self.told.front() else { return };
        for counted in self.edges.values_mut() {
            while counted.added.front().is_some_and(|(at, _)| at <= oldest) {
                counted.added.pop_front();
            }
        }
    }
}

impl Counted {
    // Whoever tells the same edge again and again has one sample for it, and few in all.
    fn add(&mut self, now: Instant, added: Counts) {
        if added == Counts::default() {
            return;
        }
        match self.added.back_mut() {
            Some((at, last)) if now.saturating_duration_since(*at) < FINEST => *last += &added,
            _ => self.added.push_back((now, added)),
        }
        if self.added.len() > MOST_SAMPLES {
            self.added.pop_front();
        }
    }

    /// What was added in what is covered.
    pub(super) fn within(&self, covered: &Covered) -> Counts {
        let mut sum = Counts::default();
        for (_, added) in self.added.iter().filter(|(at, _)| *at > covered.after) {
            sum += added;
        }
        sum
    }
}

impl Key {
    // `None`: makes no sense.
    fn told(edge: &wire::Edge) -> Option<Self> {
        let wire::Edge { outbound, mtls, other, .. } = *edge;
        let peer = match edge.peer.as_str() {
            "" => None,
            peer => Some(peer.parse().ok()?),
        };
        let is_name = |service: &str| {
            service.len() <= MAX_SERVICE_BYTES && service.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let service = match edge.service.as_str() {
            "" => None,
            service if is_name(service) => Some(service.into()),
            _ => return None,
        };
        Some(Self { outbound, mtls, peer, service, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar() -> Sidecar {
        Sidecar::new("spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap())
    }

    fn edge(peer: &str, requests: u64) -> wire::Edge {
        let peer = format!("spiffe://cluster.local/ns/shop/sa/{peer}");
        wire::Edge { mtls: true, peer, requests, ..wire::Edge::default() }
    }

    fn figures(epoch: u64, age: u64, edges: &[wire::Edge]) -> wire::Figures {
        wire::Figures { epoch, age, edges: edges.to_vec(), more: false }
    }

    fn requests(sidecar: &Sidecar, window: u64, now: Instant) -> Option<(u64, Duration)> {
        let covered = sidecar.covered(Duration::from_secs(window), now)?;
        let sum = sidecar.all().map(|(_, counted)| counted.within(&covered).requests).sum();
        Some((sum, covered.length))
    }

    const HOUR: u64 = 3_600_000;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_sidecar_that_tells_without_end_costs_no_more_than_one_that_behaves() {
        let (mut sidecar, began) = (sidecar(), Instant::now());
        for more in [true, false] {
            for number in 0..2000_u64 {
                let figures = wire::Figures {
                    epoch: 1,
                    edges: vec![edge("web", 2 * number), edge("web", 2 * number + 1)],
                    more,
                    ..wire::Figures::default()
                };
                sidecar.take(&figures, 10, began + Duration::from_millis(number * 700));
            }
        }
        let held: usize = sidecar.edges.values().map(|counted| counted.added.len()).sum();
        assert!(held <= MOST_SAMPLES && sidecar.told.len() <= MOST_SAMPLES, "{held}, {}", sidecar.told.len());
    }

    #[test]
    fn what_was_counted_before_it_was_heard_is_in_no_window() {
        let (mut sidecar, start) = (sidecar(), Instant::now());

        sidecar.take(&figures(1, HOUR, &[edge("web", 1000)]), 9, start);
        assert_eq!(requests(&sidecar, 60, start), None);
        sidecar.take(&figures(1, HOUR + 5000, &[edge("web", 1010)]), 9, start + 5 * SECOND);

        assert_eq!(requests(&sidecar, 60, start + 5 * SECOND), Some((10, 5 * SECOND)));
        assert_eq!(sidecar.all().next().unwrap().1.total.requests, 1010);
    }

    #[test]
    fn of_one_that_has_just_begun_everything_is_in_the_window() {
        let (mut sidecar, start) = (sidecar(), Instant::now() + 100 * SECOND);
        sidecar.take(&figures(1, 4000, &[edge("web", 8)]), 9, start);
        assert_eq!(requests(&sidecar, 60, start), Some((8, 4 * SECOND)));
    }

    #[test]
    fn what_is_heard_again_counts_once_and_another_epoch_begins_at_zero() {
        let (mut sidecar, start) = (sidecar(), Instant::now() + 100 * SECOND);
        sidecar.take(&figures(1, 2000, &[edge("web", 8)]), 9, start);
        for second in 1..5 {
            sidecar.take(&figures(1, 3000, &[edge("web", 8)]), 9, start + second * SECOND);
        }
        assert_eq!(requests(&sidecar, 60, start + 5 * SECOND).unwrap().0, 8);

        sidecar.take(&figures(2, 1000, &[edge("web", 3)]), 9, start + 6 * SECOND);

        assert_eq!(requests(&sidecar, 60, start + 6 * SECOND).unwrap().0, 3);
        assert_eq!(sidecar.all().next().unwrap().1.total.requests, 3);
    }

    #[test]
    fn a_window_covers_whole_reports_and_what_is_older_is_forgotten() {
        let (mut sidecar, start) = (sidecar(), Instant::now() + 100 * SECOND);
        for report in 0..40_u32 {
            let edges = [edge("web", 10 * u64::from(report))];
            sidecar.take(&figures(1, HOUR, &edges), 9, start + report * 5 * SECOND);
        }
        let now = start + 39 * 5 * SECOND + SECOND;

        assert_eq!(requests(&sidecar, 10, now), Some((20, 10 * SECOND)));
        assert_eq!(requests(&sidecar, 60, now), Some((120, 60 * SECOND)));
        assert!(sidecar.told.len() <= 14 && sidecar.edges.values().all(|edge| edge.added.len() <= 13));
        // It has fallen silent.
        assert_eq!(requests(&sidecar, 10, now + 60 * SECOND), None);
    }

    #[test]
    fn more_edges_than_there_is_room_for_are_left_out_and_that_is_known() {
        let (mut sidecar, now) = (sidecar(), Instant::now());
        let edges: Vec<_> = (0..2 * MOST_EDGES).map(|number| edge(&format!("a{number}"), 1)).collect();
        sidecar.take(&figures(1, 0, &edges), usize::MAX, now);
        assert_eq!((sidecar.edges(), sidecar.left_out()), (MOST_EDGES, true));

        let mut small = self::sidecar();
        small.take(&figures(1, 0, &edges[..2]), 1, now);
        assert_eq!((small.edges(), small.left_out()), (1, true));
    }

    #[test]
    fn an_edge_that_its_sidecar_forgot_is_gone_and_begins_anew() {
        let (mut sidecar, start) = (sidecar(), Instant::now());
        sidecar.take(&figures(1, HOUR, &[edge("web", 1000), edge("cart", 9)]), 9, start);
        sidecar.take(&figures(1, HOUR, &[]), 9, start + SECOND);

        let gone = wire::Edge { gone: true, ..edge("web", 0) };
        sidecar.take(&figures(1, HOUR, &[gone]), 9, start + 2 * SECOND);
        assert_eq!(sidecar.edges(), 1);
        sidecar.take(&figures(1, HOUR, &[edge("web", 3)]), 9, start + 3 * SECOND);
        assert_eq!(requests(&sidecar, 60, start + 3 * SECOND).unwrap().0, 3);

        // The word of it was lost.
        sidecar.take(&figures(1, HOUR, &[edge("cart", 2)]), 9, start + 4 * SECOND);
        assert_eq!(requests(&sidecar, 60, start + 4 * SECOND).unwrap().0, 5);
        let long_after = start + FORGOTTEN + 5 * SECOND;
        sidecar.take(&figures(1, HOUR, &[edge("web", 4)]), 9, long_after);
        assert_eq!(sidecar.edges(), 1, "nobody has told of the cart for long");
    }

    #[test]
    fn an_edge_that_makes_no_sense_is_passed_over() {
        let (mut sidecar, now) = (sidecar(), Instant::now());
        let nobody = wire::Edge { peer: "somebody".to_owned(), ..edge("web", 1) };
        let escape = wire::Edge { service: "a\u{1b}[2J".to_owned(), ..edge("web", 1) };
        let long = wire::Edge { service: "a".repeat(400), ..edge("web", 1) };
        sidecar.take(&figures(1, 0, &[nobody, escape, long, edge("web", 1)]), 9, now);
        assert_eq!(sidecar.edges(), 1);
    }
}
