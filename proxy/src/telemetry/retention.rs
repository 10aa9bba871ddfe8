//! The interesting traces are kept: finished spans that nobody sampled are held for a while in a ring of fixed size, and
//! when a request of their trace fails or is slow, all that the ring has of it is exported, and the peers that were
//! called for it are told, so that they do the same.
//!
//! A trace is kept once; so many a second; and what is told by peers is bounded by the same rate. Knows not how peers are
//! told, nor who may tell us (the rooms above ask only for mesh peers, and believe an answer only of its own trace).

use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use douane_proto::id::WorkloadId;
use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::{
    config::tracing::Retain,
    limits::rate::Rate,
    telemetry::{
        outcome::Outcome,
        record::{Direction, Lasted, Protection, Record},
    },
};

/// What one sidecar holds and keeps. Belongs to one thread.
#[derive(Debug)]
pub(crate) struct Retention {
    ring: RefCell<Ring>,
    kept: RefCell<Kept>,
    rate: RefCell<Rate>,
    // Of what peers tell: whoever makes traces up takes no place from what failed here.
    told: RefCell<Rate>,
    slow: Option<Duration>,
    calls: RefCell<Vec<Call>>,
    bell: Notify,
}

/// A peer that was called for a kept trace, and is to keep it as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The trace.
    pub(crate) trace_id: u128,
    /// Where the peer was met.
    pub(crate) address: SocketAddr,
    /// Who it proved to be.
    pub(crate) peer: WorkloadId,
}

/// What becomes of a span that nobody sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Held, in case that its trace turns out to be interesting.
    Held,
    /// Exported: its trace is kept.
    Kept,
    /// Exported, and its trace is kept from now on.
    Began,
}

impl Retention {
    /// `None` where nothing is to be held.
    pub(crate) fn new(settings: Retain) -> Option<Self> {
        let Retain { bytes, slow, most } = settings;
        (bytes > 0).then(|| Self {
            ring: RefCell::new(Ring { most: bytes, ..Ring::default() }),
            kept: RefCell::default(),
            rate: RefCell::new(Rate::new(most)),
            told: RefCell::new(Rate::new(most)),
            slow,
            calls: RefCell::default(),
            bell: Notify::new(),
        })
    }

    /// What becomes of the span of a record at its end.
    pub(crate) fn fate(&self, record: &Record, trace_id: u128, lasted: Lasted) -> Fate {
        if self.keeps(trace_id) {
            return Fate::Kept;
        }
        let is_slow = self.slow.is_some_and(|slow| lasted.length > slow);
        let is_interesting = is_slow || Outcome::of(record).is_failure();
        if is_interesting && self.begins(trace_id, &self.rate) { Fate::Began } else { Fate::Held }
    }

    /// Is this trace kept?
    pub(crate) fn keeps(&self, trace_id: u128) -> bool {
        let kept = self.kept.borrow();
        // Mostly there are none: nothing is hashed then.
        !kept.ids.is_empty() && kept.ids.contains(&trace_id)
    }

    /// A peer says that this trace is to be kept: from now on it is, unless too many are, or it has been all along.
    pub(crate) fn is_told(&self, trace_id: u128) -> bool {
        self.begins(trace_id, &self.told)
    }

    fn begins(&self, trace_id: u128, rate: &RefCell<Rate>) -> bool {
        if self.keeps(trace_id) || !rate.borrow_mut().admits(Instant::now()) {
            return false;
        }
        self.kept.borrow_mut().insert(trace_id);
        true
    }

    /// Holds a finished record.
    pub(crate) fn hold(&self, trace_id: u128, record: Record, lasted: Lasted) {
        self.ring.borrow_mut().push(trace_id, Held { record, lasted });
    }

    /// Gives what is held of a trace to `tell`, once.
    pub(crate) fn release(&self, trace_id: u128, tell: impl FnMut(&Record, Lasted)) {
        self.ring.borrow_mut().release(trace_id, tell);
    }

    /// The peer that was called by this record is to keep its trace as well.
    pub(crate) fn call(&self, record: &Record, trace_id: u128) {
        let (Direction::Outbound, Some(peer), Some(address)) =
            (record.direction, &record.peer, record.peer_address)
        else {
            return;
        };
        let mut calls = self.calls.borrow_mut();
        if matches!(record.protection, Protection::Mtls { .. })
            && record.peer_is_of_ours()
            && calls.len() < MOST_CALLS
        {
            calls.push(Call { trace_id, address, peer: peer.clone() });
            self.bell.notify_one();
        }
    }

    /// Waits until there are peers to be told.
    pub(crate) async fn calls(&self) -> Vec<Call> {
        loop {
            let calls = mem::take(&mut *self.calls.borrow_mut());
            if !calls.is_empty() {
                return calls;
            }
            self.bell.notified().await;
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    ids: HashSet<u128, RandomState>,
    // The oldest first.
    order: VecDeque<u128>,
}

impl Kept {
    fn insert(&mut self, trace_id: u128) {
        if self.order.len() >= MOST_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(trace_id);
        self.ids.insert(trace_id);
    }
}

/// Records, the oldest first, in so many bytes; their ids stand apart, so that a search reads little.
#[derive(Debug, Default)]
struct Ring {
    ids: VecDeque<u128>,
    held: VecDeque<Held>,
    bytes: usize,
    most: usize,
}

#[derive(Debug)]
struct Held {
    record: Record,
    lasted: Lasted,
}

impl Ring {
    fn push(&mut self, trace_id: u128, mut held: Held) {
        held.record.forget_what_no_span_tells();
        let places = self.most / (size_of::<Held>() + USUAL_TEXTS);
        if self.held.capacity() == 0 {
            // At once: growing would copy all of it.
            self.held.reserve_exact(places);
            self.ids.reserve_exact(places);
        }
        self.bytes += held.size();
        while (self.bytes > self.most || self.held.len() >= places)
            && let Some(oldest) = self.held.pop_front()
        {
            self.ids.pop_front();
            self.bytes = self.bytes.saturating_sub(oldest.size());
        }
        self.held.push_back(held);
        self.ids.push_back(trace_id);
    }

    fn release(&mut self, trace_id: u128, mut tell: impl FnMut(&Record, Lasted)) {
        for (id, held) in self.ids.iter_mut().zip(&self.held) {
            if *id == trace_id {
                tell(&held.record, held.lasted);
                // No trace has it: its span is told once.
                *id = 0;
            }
        }
    }
}

impl Held {
    fn size(&self) -> usize {
        let Record { authority, path, reason, request_id, user_agent, .. } = &self.record;
        let texts = [authority, path, reason].into_iter().flatten().map(String::capacity);
        let words = [request_id, user_agent].into_iter().flatten().map(|word| word.len());
        size_of::<Self>() + size_of::<u128>() + texts.chain(words).sum::<usize>()
    }
}

// Bytes: a host, a path, and an id that stands apart.
const USUAL_TEXTS: usize = 64;
// Traces: those of more than a minute at the usual rate.
const MOST_KEPT: usize = 4096;
// Peers to be told at once; the rest of a flood is not.
const MOST_CALLS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn record(direction: Direction, status: u16) -> Record {
        let mut record = Record::new(direction, "10.77.0.5:8080".parse().unwrap());
        (record.method, record.status) = (Some(http::Method::GET), Some(status));
        record.path = Some("/orders/42".to_owned());
        record
    }

    fn lasted(millis: u64) -> Lasted {
        Lasted { from: UNIX_EPOCH, length: Duration::from_millis(millis) }
    }

    fn released(retention: &Retention, trace_id: u128) -> usize {
        let mut count = 0;
        retention.release(trace_id, |_, _| count += 1);
        count
    }

    #[test]
    fn a_failure_keeps_its_trace_once_and_a_success_is_held() {
        let retention = Retention::new(Retain::default()).unwrap();
        let good = record(Direction::Inbound, 200);

        assert_eq!(retention.fate(&good, 1, lasted(5)), Fate::Held);
        retention.hold(1, good, lasted(5));
        retention.hold(2, record(Direction::Inbound, 404), lasted(5));
        assert_eq!(retention.fate(&record(Direction::Inbound, 500), 1, lasted(5)), Fate::Began);
        assert_eq!(released(&retention, 1), 1);
        assert_eq!(released(&retention, 1), 0, "once");
        assert_eq!(retention.fate(&record(Direction::Inbound, 200), 1, lasted(5)), Fate::Kept);
        assert_eq!(released(&retention, 2), 1);
    }

    #[test]
    fn what_is_slow_is_interesting_where_that_is_wanted() {
        let slow = Some(Duration::from_secs(1));
        let retention = Retention::new(Retain { slow, ..Retain::default() }).unwrap();

        assert_eq!(retention.fate(&record(Direction::Outbound, 200), 1, lasted(1001)), Fate::Began);
        assert_eq!(retention.fate(&record(Direction::Outbound, 200), 2, lasted(1000)), Fate::Held);
    }

    #[test]
    fn the_ring_stays_within_its_bytes_and_forgets_the_oldest() {
        let bytes = 64 * 1024;
        let retention = Retention::new(Retain { bytes, ..Retain::default() }).unwrap();

        for id in 1..10_000_u128 {
            retention.hold(id, record(Direction::Inbound, 200), lasted(1));
        }

        assert!(retention.ring.borrow().bytes <= bytes);
        let ring = retention.ring.borrow();
        let room = ring.held.capacity() * size_of::<Held>() + ring.ids.capacity() * size_of::<u128>();
        assert!(room <= bytes + bytes / 2, "{room}");
        drop(ring);
        assert_eq!((released(&retention, 1), released(&retention, 9_999)), (0, 1));
    }

    #[test]
    fn the_usual_ring_holds_more_than_five_thousand_spans() {
        let retention = Retention::new(Retain::default()).unwrap();

        for id in 1..50_000_u128 {
            retention.hold(id, record(Direction::Inbound, 200), lasted(1));
        }

        let held = retention.ring.borrow().held.len();
        assert!((5_000..10_000).contains(&held), "README says so: {held}");
    }

    #[test]
    fn so_many_traces_a_second_are_kept() {
        let retention = Retention::new(Retain { most: 10, ..Retain::default() }).unwrap();

        let begun = (1..1000_u128).filter(|id| retention.is_told(*id)).count();

        assert!((10..100).contains(&begun), "{begun}");
        assert!(Retention::new(Retain { bytes: 0, ..Retain::default() }).is_none());
    }

    #[test]
    fn only_peers_of_the_mesh_that_were_called_are_told() {
        let retention = Retention::new(Retain::default()).unwrap();
        let id = |text: &str| Some(text.parse().unwrap());
        let mut called = record(Direction::Outbound, 200);
        called.peer_address = Some("10.77.0.6:8080".parse().unwrap());
        called.local = id("spiffe://cluster.local/ns/shop/sa/web");
        called.peer = id("spiffe://elsewhere.example/ns/shop/sa/orders");
        called.protection = Protection::Mtls { version: "TLSv1.3", group: "X25519".into(), binding: 1 };
        retention.call(&called, 7);
        assert!(retention.calls.borrow().is_empty(), "another trust domain");

        called.peer = id("spiffe://cluster.local/ns/shop/sa/orders");
        retention.call(&called, 7);
        let told = retention.calls.borrow().clone();
        assert_eq!((told.len(), told[0].trace_id, told[0].address.port()), (1, 7, 8080));
    }
}
