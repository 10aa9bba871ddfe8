//! Who talks to whom: counters for each pair of workloads that this sidecar stands between, told to the control plane.
//!
//! They only grow, so that to tell them again counts nothing twice. Bounded like the series of a metric: what is past the cap is
//! counted together, and an edge that nothing touched for long is forgotten, which is told as well. Labels are proven identities and names that the control plane gave. Knows not how they are told.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::{
    figures::{BUCKETS, bucket},
    id::WorkloadId,
    wire,
};
use foldhash::fast::RandomState;

use crate::telemetry::{
    outcome::Outcome,
    record::{Direction, Protection, Record},
};

/// All edges of one sidecar.
#[derive(Debug)]
pub(crate) struct Edges {
    epoch: u64,
    began: Instant,
    known: RefCell<HashMap<Key, Rc<Edge>, RandomState>>,
    swept: Cell<Instant>,
    // Forgotten, and not told yet.
    gone: RefCell<Vec<Key>>,
    // Past the cap: one for each direction.
    others: [Rc<Edge>; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    is_mtls: bool,
    peer: Option<WorkloadId>,
    service: Option<Arc<str>>,
}

/// The counters of one edge. Belongs to one thread.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    // Since it was told.
    changed: Cell<bool>,
    // Since it was looked at for the last time.
    fresh: Cell<bool>,
    requests: Cell<u64>,
    failures: Cell<u64>,
    denied: Cell<u64>,
    durations: [Cell<u64>; BUCKETS],
    streams: Cell<u64>,
    stream_failures: Cell<u64>,
    streams_denied: Cell<u64>,
    streams_open: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Default for Edges {
    fn default() -> Self {
        let began = Instant::now();
        Self {
            epoch: rand::random(),
            began,
            known: RefCell::default(),
            swept: Cell::new(began),
            gone: RefCell::default(),
            others: <[Rc<Edge>; 2]>::default(),
        }
    }
}

impl Edges {
    /// A stream is open; whoever holds the edge counts its end there.
    pub(crate) fn opened(&self, record: &Record) -> Rc<Edge> {
        let edge = self.of(record);
        add(&edge.streams_open, 1);
        edge.touch();
        edge
    }

    /// A request or stream has ended. `opened`: the edge that it was open on as a stream.
    pub(crate) fn ended(&self, record: &Record, length: Duration, opened: Option<&Edge>) {
        match opened {
            Some(edge) => {
                edge.streams_open.set(edge.streams_open.get().saturating_sub(1));
                edge.stream(record);
                // An upgraded connection is a request, too, but lasts as long as it likes.
                if record.method.is_some() {
                    edge.request(record);
                }
            }
            None => {
                let edge = self.of(record);
                if record.method.is_some() {
                    edge.request(record);
                    if let Some(count) = edge.durations.get(bucket(length)) {
                        add(count, 1);
                    }
                } else {
                    edge.stream(record);
                }
            }
        }
    }

    /// To a control plane that has heard nothing yet all is news.
    pub(crate) fn forget_telling(&self) {
        let known = self.known.borrow();
        for edge in known.values().chain(self.others.iter().filter(|edge| edge.is_used())) {
            edge.changed.set(true);
        }
    }

    /// What changed since it was asked last, in messages of bounded length; at least one.
    pub(crate) fn take_news(&self, now: Instant) -> Vec<wire::Figures> {
        self.sweep(now);
        let known = self.known.borrow();
        let changed = known.iter().filter(|(_, edge)| edge.changed.replace(false));
        let mut edges: Vec<wire::Edge> = changed.map(|(key, edge)| edge.told(key.told())).collect();
        for (edge, outbound) in self.others.iter().zip([false, true]) {
            if edge.changed.replace(false) {
                edges.push(edge.told(wire::Edge { outbound, other: true, ..wire::Edge::default() }));
            }
        }
        let gone = self.gone.take();
        edges.extend(gone.iter().filter(|key| !known.contains_key(key)).map(|key| {
            // Its counters are zero: whoever does not know the word has nothing to subtract from the next ones.
            wire::Edge { gone: true, ..key.told() }
        }));
        let age = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        let figures = |edges: &[wire::Edge], more| wire::Figures {
            epoch: self.epoch,
            age,
            edges: edges.to_vec(),
            more,
        };
        let mut parts = edges.chunks(MOST_IN_A_MESSAGE).peekable();
        let mut told = Vec::new();
        while let Some(part) = parts.next() {
            told.push(figures(part, parts.peek().is_some()));
        }
        if told.is_empty() {
            told.push(figures(&[], false));
        }
        told
    }

    fn of(&self, record: &Record) -> Rc<Edge> {
        let key = Key::of(record);
        if let Some(edge) = self.known.borrow().get(&key) {
            return Rc::clone(edge);
        }
        if self.known.borrow().len() >= MOST_EDGES {
            self.sweep(Instant::now());
        }
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST_EDGES {
            let [inbound, outbound] = &self.others;
            return Rc::clone(match record.direction {
                Direction::Inbound => inbound,
                Direction::Outbound => outbound,
            });
        }
        Rc::clone(known.entry(key).or_default())
    }

    // Forgets what nothing touched between two looks, so that peers of yesterday do not fill the places of today's.
    fn sweep(&self, now: Instant) {
        if now.saturating_duration_since(self.swept.get()) < IDLE {
            return;
        }
        self.swept.set(now);
        let mut gone = self.gone.borrow_mut();
        self.known.borrow_mut().retain(|key, edge| {
            // Whoever holds it counts a stream's end there.
            let keep = edge.fresh.replace(false) || edge.streams_open.get() > 0 || Rc::strong_count(edge) > 1;
            if !keep && gone.len() < MOST_EDGES {
                gone.push(key.clone());
            }
            keep
        });
    }
}

impl Key {
    fn of(record: &Record) -> Self {
        Self {
            direction: record.direction,
            is_mtls: matches!(record.protection, Protection::Mtls { .. }),
            peer: record.peer.clone(),
            service: record.service.clone(),
        }
    }

    fn told(&self) -> wire::Edge {
        wire::Edge {
            outbound: self.direction == Direction::Outbound,
            mtls: self.is_mtls,
            peer: self.peer.as_ref().map(ToString::to_string).unwrap_or_default(),
            service: self.service.as_deref().unwrap_or_default().to_owned(),
            ..wire::Edge::default()
        }
    }
}

impl Edge {
    fn request(&self, record: &Record) {
        add(&self.requests, 1);
        count(Outcome::of(record), &self.failures, &self.denied);
        self.bytes(record);
    }

    fn stream(&self, record: &Record) {
        add(&self.streams, 1);
        count(Outcome::of(record), &self.stream_failures, &self.streams_denied);
        // Those of an upgraded connection are counted as a request's.
        if record.method.is_none() {
            self.bytes(record);
        }
    }

    fn bytes(&self, record: &Record) {
        add(&self.bytes_in, record.bytes_in);
        add(&self.bytes_out, record.bytes_out);
        self.touch();
    }

    fn touch(&self) {
        self.changed.set(true);
        self.fresh.set(true);
    }

    fn is_used(&self) -> bool {
        self.requests.get() + self.streams.get() + self.streams_open.get() > 0
    }

    fn told(&self, edge: wire::Edge) -> wire::Edge {
        wire::Edge {
            requests: self.requests.get(),
            failures: self.failures.get(),
            denied: self.denied.get(),
            durations: self.durations.iter().map(Cell::get).collect(),
            streams: self.streams.get(),
            stream_failures: self.stream_failures.get(),
            streams_denied: self.streams_denied.get(),
            streams_open: self.streams_open.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            ..edge
        }
    }
}

// A client that leaves or errs is no failure of the edge.
fn count(outcome: Outcome, failures: &Cell<u64>, denied: &Cell<u64>) {
    match outcome {
        Outcome::Well | Outcome::Left | Outcome::Erred => {}
        Outcome::Failed => add(failures, 1),
        Outcome::Denied | Outcome::DeniedInDoubt => add(denied, 1),
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get().saturating_add(count));
}

/// An edge that nothing touched for as long, or at most twice as long, is forgotten, as series are.
const IDLE: Duration = Duration::from_secs(3600);
/// Of one sidecar; each has about 300 bytes.
pub(crate) const MOST_EDGES: usize = 256;
/// Identities of the longest length make an edge of 2.5 KiB, and the control plane reads 64 KiB.
const MOST_IN_A_MESSAGE: usize = 20;

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn record(direction: Direction, peer: &str) -> Record {
        let mut record = Record::new(direction, "10.77.0.5:8080".parse().unwrap());
        record.peer = Some(format!("spiffe://cluster.local/ns/shop/sa/{peer}").parse().unwrap());
        record.protection =
            Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".into(), binding: 7 };
        record
    }

    fn request(peer: &str, status: u16) -> Record {
        let mut record = record(Direction::Inbound, peer);
        (record.method, record.status) = (Some(Method::GET), Some(status));
        (record.bytes_in, record.bytes_out) = (3, 5);
        record
    }

    fn news(edges: &Edges) -> Vec<wire::Edge> {
        edges.take_news(Instant::now()).into_iter().flat_map(|figures| figures.edges).collect()
    }

    const LENGTH: Duration = Duration::from_millis(1);

    #[test]
    fn requests_are_counted_by_their_peer_and_by_how_they_ended() {
        let edges = Edges::default();
        let mut denied = request("web", 403);
        (denied.denied, denied.refusal) = (true, Some("denied"));
        let mut gone = request("web", 200);
        (gone.status, gone.refusal) = (None, Some("client_gone"));
        let mut grpc = request("web", 200);
        grpc.grpc_status = Some(14);
        for record in [request("web", 200), request("web", 404), request("web", 500), denied, gone, grpc] {
            edges.ended(&record, LENGTH, None);
        }
        edges.ended(&request("cart", 200), LENGTH, None);

        let mut told = news(&edges);
        told.sort_by(|one, other| one.peer.cmp(&other.peer));

        assert_eq!(told.len(), 2);
        let [cart, web] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((cart.requests, web.requests, web.failures, web.denied), (1, 6, 2, 1));
        assert_eq!((web.mtls, web.outbound, web.bytes_in, web.bytes_out), (true, false, 18, 30));
        assert_eq!(web.durations[bucket(LENGTH)], 6);
        assert_eq!(web.peer, "spiffe://cluster.local/ns/shop/sa/web");
    }

    #[test]
    fn a_stream_is_told_while_it_is_open_and_counted_on_the_same_edge_when_it_ends() {
        let edges = Edges::default();
        let mut stream = record(Direction::Outbound, "ledger");

        let open = edges.opened(&stream);
        assert_eq!(news(&edges)[0].streams_open, 1);
        // What is learned of it later makes no other edge.
        stream.service = Some("shop/ledger".into());
        stream.bytes_out = 9;
        edges.ended(&stream, LENGTH, Some(&open));

        let told = news(&edges);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].streams, told[0].streams_open, told[0].bytes_out), (1, 0, 9));
        assert_eq!(told[0].requests, 0);
    }

    #[test]
    fn an_upgraded_connection_is_a_request_without_a_duration() {
        let edges = Edges::default();
        let upgraded = request("web", 101);
        let open = edges.opened(&upgraded);
        edges.ended(&upgraded, LENGTH, Some(&open));

        let told = news(&edges);
        assert_eq!((told[0].requests, told[0].streams, told[0].bytes_in), (1, 1, 3));
        assert!(told[0].durations.iter().all(|count| *count == 0), "{told:?}");
    }

    #[test]
    fn only_news_is_told_and_all_of_it_to_a_control_plane_that_knows_nothing() {
        let edges = Edges::default();
        edges.ended(&request("web", 200), LENGTH, None);
        edges.ended(&request("cart", 200), LENGTH, None);
        assert_eq!(news(&edges).len(), 2);
        assert_eq!(news(&edges), []);
        edges.ended(&request("web", 200), LENGTH, None);
        let told = news(&edges);
        assert_eq!((told.len(), told[0].requests), (1, 2), "since it began, not since it was told");

        edges.forget_telling();

        assert_eq!(news(&edges).len(), 2);
    }

    #[test]
    fn an_edge_that_nothing_touched_for_long_is_forgotten_and_its_place_is_free_again() {
        let (edges, now) = (Edges::default(), Instant::now());
        let told = |at| edges.take_news(at).into_iter().flat_map(|figures| figures.edges).collect::<Vec<_>>();
        let open = edges.opened(&record(Direction::Outbound, "ledger"));
        for number in 0..2 * MOST_EDGES {
            edges.ended(&request(&format!("p{number}"), 200), LENGTH, None);
        }
        assert_eq!(told(now).len(), MOST_EDGES + 1, "those past the cap are one");
        assert_eq!(told(now + IDLE), [], "all were touched since the beginning");
        edges.ended(&request("p0", 200), LENGTH, None);

        let news = told(now + 2 * IDLE);

        let (gone, rest): (Vec<_>, Vec<_>) = news.iter().partition(|edge| edge.gone);
        assert_eq!((gone.len(), rest.len()), (MOST_EDGES - 2, 1), "the open stream and p0 stay");
        assert!(gone.iter().all(|edge| edge.requests == 0) && rest[0].peer.ends_with("/p0"), "{rest:?}");
        edges.ended(&request("p1", 200), LENGTH, None);
        let news = told(now + 2 * IDLE);
        assert_eq!((news.len(), news[0].requests, news[0].gone), (1, 1, false), "it begins anew");
        edges.ended(&record(Direction::Outbound, "ledger"), LENGTH, Some(&open));
        assert_eq!(told(now + 2 * IDLE)[0].streams, 1);
    }

    #[test]
    fn edges_past_the_cap_are_counted_together_and_messages_stay_small() {
        let edges = Edges::default();
        let long = "a".repeat(1900);
        for number in 0..2 * MOST_EDGES {
            edges.ended(&request(&format!("{long}{number}"), 200), LENGTH, None);
        }

        let told = edges.take_news(Instant::now());

        assert!(told.iter().all(|figures| prost::Message::encoded_len(figures) < 64 * 1024));
        assert!(told.iter().rev().skip(1).all(|figures| figures.more) && !told[told.len() - 1].more);
        let edges: Vec<_> = told.into_iter().flat_map(|figures| figures.edges).collect();
        assert_eq!(edges.len(), MOST_EDGES + 1);
        let other = edges.iter().find(|edge| edge.other).unwrap();
        assert_eq!((other.requests, other.peer.as_str()), (MOST_EDGES as u64, ""));
    }
}
