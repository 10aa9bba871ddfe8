//! What operators ask of the traffic right now: live requests while somebody looks (taps), and what is remembered of those
//! that failed (a ring of the last ones). While nobody asks, a request that goes well costs a look at an empty list.
//!
//! Bounded: so many taps, so many requests a second for each, so many remembered. Knows not who asks, nor how it is told.

use std::{
    cell::RefCell,
    collections::VecDeque,
    mem,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use douane_proto::wire;
use tokio::sync::Notify;

use crate::telemetry::{
    outcome::Outcome,
    record::{Direction, Lasted, Record},
    sighting::sighting,
};

/// Where inquiries are answered from. Belongs to one thread.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    remembered: RefCell<VecDeque<wire::Sighting>>,
    // Of connections that were refused before anything could be traced: whoever makes many of them drives out nothing else.
    untraced: RefCell<VecDeque<wire::Sighting>>,
    taps: RefCell<Vec<Open>>,
    searched: RefCell<Vec<u64>>,
    found: RefCell<Vec<wire::Sightings>>,
    news: Rc<Notify>,
}

#[derive(Debug)]
struct Open {
    tap: wire::Tap,
    seen: Vec<wire::Sighting>,
    left_out: u64,
    second: Instant,
    told: u32,
}

impl Sightings {
    /// A request or stream has ended.
    pub(crate) fn ended(&self, record: &Record, lasted: Lasted) {
        if !Outcome::of(record).is_good() {
            let (ring, most) = match record.trace {
                Some(_) => (&self.remembered, MOST_REMEMBERED),
                None => (&self.untraced, MOST_UNTRACED),
            };
            let mut ring = ring.borrow_mut();
            if ring.len() >= most {
                ring.pop_front();
            }
            ring.push_back(sighting(record, lasted));
        }
        let mut taps = self.taps.borrow_mut();
        if taps.is_empty() {
            return;
        }
        let now = Instant::now();
        for open in taps.iter_mut().filter(|open| open.wants(record)) {
            if open.may_tell(now) {
                open.seen.push(sighting(record, lasted));
            } else {
                open.left_out = open.left_out.saturating_add(1);
            }
            self.news.notify_one();
        }
    }

    /// Somebody asks this from now on, in place of what was asked before.
    pub(crate) fn inquire(&self, inquiry: wire::Inquiry) {
        let mut taps = self.taps.borrow_mut();
        let mut before = mem::take(&mut *taps);
        for tap in inquiry.taps.into_iter().take(MOST_TAPS) {
            let known = before.iter().position(|open| open.tap == tap).map(|at| before.swap_remove(at));
            taps.push(known.unwrap_or_else(|| Open::new(tap)));
        }
        let mut searched = self.searched.borrow_mut();
        for search in inquiry.searches.iter().take(MOST_TAPS) {
            if !searched.contains(&search.number) {
                self.found.borrow_mut().extend(self.search(search));
            }
        }
        *searched = inquiry.searches.iter().take(MOST_TAPS).map(|search| search.number).collect();
        self.news.notify_one();
    }

    /// Nobody asks any more.
    pub(crate) fn forget(&self) {
        self.taps.borrow_mut().clear();
        self.searched.borrow_mut().clear();
        self.found.borrow_mut().clear();
    }

    /// Told when there is something to take.
    pub(crate) fn news(&self) -> Rc<Notify> {
        Rc::clone(&self.news)
    }

    /// What was seen since it was taken last, in messages of bounded length.
    pub(crate) fn take(&self) -> Vec<wire::Sightings> {
        let mut told = mem::take(&mut *self.found.borrow_mut());
        for open in self.taps.borrow_mut().iter_mut() {
            let (number, left_out) = (open.tap.number, mem::take(&mut open.left_out));
            let mut parts = parts(number, &mem::take(&mut open.seen));
            match parts.last_mut() {
                Some(part) => part.left_out = left_out,
                None if left_out > 0 => {
                    parts.push(wire::Sightings { number, left_out, ..wire::Sightings::default() });
                }
                None => {}
            }
            told.append(&mut parts);
        }
        told
    }

    fn search(&self, search: &wire::Search) -> Vec<wire::Sightings> {
        let (remembered, untraced) = (self.remembered.borrow(), self.untraced.borrow());
        let sought = Sought::of(search);
        let all = remembered.iter().chain(untraced.iter());
        let found: Vec<_> = all.filter(|one| sought.is_it(one)).cloned().collect();
        let mut parts = parts(search.number, &found);
        match parts.last_mut() {
            Some(part) => part.last = true,
            None => parts.push(wire::Sightings {
                number: search.number,
                last: true,
                ..wire::Sightings::default()
            }),
        }
        parts
    }
}

// What is looked for: each that is given counts by itself.
struct Sought<'a> {
    id: &'a [u8],
    request_id: &'a str,
    address: Option<IpAddr>,
    // `None`: any.
    port: Option<u16>,
}

impl<'a> Sought<'a> {
    fn of(search: &'a wire::Search) -> Self {
        let wire::Search { id, request_id, address, .. } = search;
        let (address, port) = match (address.parse::<IpAddr>(), address.parse::<SocketAddr>()) {
            (Ok(address), _) => (Some(address), None),
            (_, Ok(socket)) => (Some(socket.ip()), Some(socket.port())),
            _ => (None, None),
        };
        Self { id, request_id, address, port }
    }

    fn is_it(&self, one: &wire::Sighting) -> bool {
        (!self.id.is_empty() && (one.trace_id == self.id || one.span_id == self.id))
            || (!self.request_id.is_empty() && one.request_id == self.request_id)
            || [&one.destination, &one.peer_address].into_iter().any(|end| self.is_at(end))
    }

    fn is_at(&self, end: &str) -> bool {
        let (Some(address), Ok(end)) = (self.address, end.parse::<SocketAddr>()) else { return false };
        address == end.ip() && self.port.is_none_or(|port| port == end.port())
    }
}

fn parts(number: u64, sightings: &[wire::Sighting]) -> Vec<wire::Sightings> {
    let part = |part: &[wire::Sighting]| wire::Sightings {
        number,
        sightings: part.to_vec(),
        ..wire::Sightings::default()
    };
    sightings.chunks(MOST_IN_A_MESSAGE).map(part).collect()
}

impl Open {
    fn new(tap: wire::Tap) -> Self {
        Self { tap, seen: Vec::new(), left_out: 0, second: Instant::now(), told: 0 }
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.told) = (now, 0);
        }
        self.told += 1;
        self.told <= MOST_A_SECOND && self.seen.len() < MOST_WAITING
    }

    fn wants(&self, record: &Record) -> bool {
        self.is_between(record) && self.is_such(record)
    }

    fn is_between(&self, record: &Record) -> bool {
        let wire::Tap { inbound, outbound, from, to, services, both_ends, .. } = &self.tap;
        let is_peer =
            |ids: &[String]| record.peer.as_ref().is_some_and(|peer| ids.contains(&peer.to_string()));
        match record.direction {
            Direction::Inbound => *inbound && (from.is_empty() || is_peer(from)),
            // A proven peer tells it itself.
            Direction::Outbound => {
                let anybody = to.is_empty() && services.is_empty();
                let is_service =
                    || record.service.as_ref().is_some_and(|name| services.iter().any(|one| **one == **name));
                *outbound && (*both_ends || record.peer.is_none()) && (anybody || is_peer(to) || is_service())
            }
        }
    }

    fn is_such(&self, record: &Record) -> bool {
        let wire::Tap { methods, path, status_from, status_to, denied, failed, .. } = &self.tap;
        let method = record.method.as_ref().map_or("", http::Method::as_str);
        let status = record.status.map(u32::from).unwrap_or_default();
        let is_bad = |outcome: Outcome| outcome.is_failure() || outcome.is_denied();
        (methods.is_empty() || methods.iter().any(|one| one == method))
            && (path.is_empty() || record.path.as_deref().is_some_and(|own| own.starts_with(path.as_str())))
            && ((*status_from, *status_to) == (0, 0) || (*status_from..=*status_to).contains(&status))
            && (!denied || record.denied)
            && (!failed || is_bad(Outcome::of(record)))
    }
}

/// Each has half a KiB, and a failure of an hour ago is in the log.
const MOST_REMEMBERED: usize = 256;
/// The same for connections that have no trace.
const MOST_UNTRACED: usize = 64;
/// Of all operators.
const MOST_TAPS: usize = 16;
/// For each tap: more than a human reads.
const MOST_A_SECOND: u32 = 100;
/// While the control plane reads slowly.
const MOST_WAITING: usize = 200;
/// The longest sighting has 6 KiB, and the control plane reads 64 KiB.
const MOST_IN_A_MESSAGE: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::Method;

    use super::*;
    use crate::telemetry::trace::TraceContext;

    const LASTED: Lasted = Lasted { from: UNIX_EPOCH, length: Duration::from_millis(3) };
    const TRACE: u128 = 0xabc;

    fn request(direction: Direction, peer: Option<&str>, status: u16) -> Record {
        let mut record = Record::new(direction, "10.77.0.5:8080".parse().unwrap());
        record.method = Some(Method::GET);
        record.path = Some("/orders/1?token=secret".to_owned());
        record.status = Some(status);
        record.peer = peer.map(|peer| format!("spiffe://cluster.local/ns/shop/sa/{peer}").parse().unwrap());
        record.service = Some("shop/orders".into());
        record.trace =
            Some(TraceContext { trace_id: TRACE, parent_id: None, span_id: 7, sampled: false, random: true });
        record
    }

    fn tap(number: u64) -> wire::Tap {
        wire::Tap { number, inbound: true, outbound: true, ..wire::Tap::default() }
    }

    fn asked(taps: Vec<wire::Tap>) -> wire::Inquiry {
        wire::Inquiry { taps, searches: Vec::new() }
    }

    fn seen(tap: wire::Tap, record: &Record) -> usize {
        let sightings = Sightings::default();
        sightings.inquire(asked(vec![tap]));
        sightings.ended(record, LASTED);
        sightings.take().iter().map(|told| told.sightings.len()).sum()
    }

    #[test]
    fn a_tap_sees_what_it_asks_for_and_nothing_else() {
        let get = request(Direction::Inbound, Some("web"), 200);
        let web = "spiffe://cluster.local/ns/shop/sa/web".to_owned();
        for (what, wanted, is_seen) in [
            ("anything", tap(1), true),
            ("from web", wire::Tap { from: vec![web.clone()], ..tap(1) }, true),
            ("from another", wire::Tap { from: vec![format!("{web}2")], ..tap(1) }, false),
            ("outbound", wire::Tap { inbound: false, ..tap(1) }, false),
            ("POST", wire::Tap { methods: vec!["POST".to_owned()], ..tap(1) }, false),
            ("path", wire::Tap { path: "/orders".to_owned(), ..tap(1) }, true),
            ("another path", wire::Tap { path: "/carts".to_owned(), ..tap(1) }, false),
            ("2xx", wire::Tap { status_from: 200, status_to: 299, ..tap(1) }, true),
            ("5xx", wire::Tap { status_from: 500, status_to: 599, ..tap(1) }, false),
            ("denied", wire::Tap { denied: true, ..tap(1) }, false),
            ("failed", wire::Tap { failed: true, ..tap(1) }, false),
        ] {
            assert_eq!(seen(wanted, &get), usize::from(is_seen), "{what}");
        }
        let mut denied = request(Direction::Inbound, None, 403);
        (denied.denied, denied.refusal) = (true, Some("denied"));
        assert_eq!(seen(wire::Tap { denied: true, failed: true, ..tap(1) }, &denied), 1);
    }

    #[test]
    fn what_the_peer_tells_itself_is_told_once_unless_both_ends_are_asked_for() {
        let met = request(Direction::Outbound, Some("orders"), 200);
        let unmet = request(Direction::Outbound, None, 502);
        assert_eq!((seen(tap(1), &met), seen(tap(1), &unmet)), (0, 1));
        assert_eq!(seen(wire::Tap { both_ends: true, ..tap(1) }, &met), 1);
        let of_service = wire::Tap { services: vec!["shop/orders".to_owned()], ..tap(1) };
        let of_another = wire::Tap { services: vec!["shop/ledger".to_owned()], ..tap(1) };
        assert_eq!((seen(of_service, &unmet), seen(of_another, &unmet)), (1, 0));
    }

    #[test]
    fn a_query_is_never_told_and_texts_have_a_bounded_length() {
        let mut long = request(Direction::Inbound, Some("web"), 200);
        let told = sighting(&long, LASTED);
        assert_eq!((told.path.as_str(), told.lasted, told.ended), ("/orders/1", 3000, 3000));
        assert!(!format!("{told:?}").contains("secret"));
        long.path = Some(format!("/{}", "é".repeat(10_000)));
        long.method = Some(Method::from_bytes(b"SECRET").unwrap());
        long.reason = Some("a".repeat(100_000));
        let told = sighting(&long, LASTED);
        assert!(prost::Message::encoded_len(&told) < 6 * 1024);
        assert_eq!(told.method, "_OTHER");
    }

    #[test]
    fn a_tap_is_told_so_much_a_second_and_how_much_was_left_out() {
        let sightings = Sightings::default();
        sightings.inquire(asked(vec![tap(1)]));
        let get = request(Direction::Inbound, Some("web"), 200);
        for _ in 0..1000 {
            sightings.ended(&get, LASTED);
        }
        let told = sightings.take();
        let seen: usize = told.iter().map(|told| told.sightings.len()).sum();
        let left_out: u64 = told.iter().map(|told| told.left_out).sum();
        // The test may see more than one second.
        assert!((100..=200).contains(&seen) && seen as u64 + left_out == 1000, "{seen} {left_out}");
        assert!(told.iter().all(|told| told.number == 1 && told.sightings.len() <= MOST_IN_A_MESSAGE));

        sightings.inquire(asked(Vec::new()));
        sightings.ended(&get, LASTED);
        assert_eq!(sightings.take(), [], "it is closed");
    }

    #[test]
    fn what_failed_is_remembered_and_found_once_for_each_search() {
        let sightings = Sightings::default();
        sightings.ended(&request(Direction::Inbound, Some("web"), 200), LASTED);
        sightings.ended(&request(Direction::Inbound, Some("web"), 403), LASTED);
        let search = |number, id: &[u8]| wire::Inquiry {
            taps: Vec::new(),
            searches: vec![wire::Search { number, id: id.to_vec(), ..wire::Search::default() }],
        };

        sightings.inquire(search(1, &TRACE.to_be_bytes()));
        let told = sightings.take();
        assert_eq!((told.len(), told[0].sightings.len(), told[0].last), (1, 1, true));
        assert_eq!(told[0].sightings[0].status, 403);
        sightings.inquire(search(1, &TRACE.to_be_bytes()));
        assert_eq!(sightings.take(), [], "it was answered");

        for (number, id, found) in [(2, &7_u64.to_be_bytes()[..], 1), (3, &[9; 16], 0), (4, &[], 0)] {
            sightings.inquire(search(number, id));
            let told = sightings.take();
            assert_eq!((told[0].sightings.len(), told[0].last), (found, true), "{number}");
        }
    }

    #[test]
    fn what_failed_is_found_by_its_request_id_and_by_the_address_of_either_end() {
        let sightings = Sightings::default();
        let mut named = request(Direction::Inbound, Some("web"), 403);
        named.request_id = Some("0192f0c4-7a5e-7c3b-9d7e-0f6a2b1c3d4e".into());
        sightings.ended(&named, LASTED);
        // Refused before anything could be traced.
        let mut stream = Record::new(Direction::Inbound, "[fd77::5]:7000".parse().unwrap());
        stream.peer_address = Some("10.77.0.9:41234".parse().unwrap());
        stream.refusal = Some("plaintext");
        sightings.ended(&stream, LASTED);

        let mut number = 0;
        let mut found = |request_id: &str, address: &str| {
            number += 1;
            let (request_id, address) = (request_id.to_owned(), address.to_owned());
            let search = wire::Search { number, request_id, address, ..wire::Search::default() };
            sightings.inquire(wire::Inquiry { taps: Vec::new(), searches: vec![search] });
            sightings.take()[0].sightings.len()
        };
        assert_eq!(found("0192f0c4-7a5e-7c3b-9d7e-0f6a2b1c3d4e", ""), 1);
        assert_eq!(found("0192f0c4", ""), 0);
        for (address, many) in
            [("fd77::5", 1), ("[fd77::5]:7000", 1), ("[fd77::5]:7001", 0), ("10.77.0.9", 1), ("nowhere", 0)]
        {
            assert_eq!(found("", address), many, "{address}");
        }
        assert_eq!(found("", ""), 0);
    }

    #[test]
    fn connections_of_strangers_drive_out_no_failed_request() {
        let sightings = Sightings::default();
        sightings.ended(&request(Direction::Inbound, Some("web"), 500), LASTED);
        let mut stranger = Record::new(Direction::Inbound, "10.77.0.5:7000".parse().unwrap());
        stranger.refusal = Some("plaintext");
        for _ in 0..2 * MOST_REMEMBERED {
            sightings.ended(&stranger, LASTED);
        }
        assert_eq!(sightings.remembered.borrow().len(), 1);
        assert_eq!(sightings.untraced.borrow().len(), MOST_UNTRACED);
    }

    #[test]
    fn only_the_last_failures_are_remembered() {
        let sightings = Sightings::default();
        for _ in 0..2 * MOST_REMEMBERED {
            sightings.ended(&request(Direction::Inbound, Some("web"), 500), LASTED);
        }
        assert_eq!(sightings.remembered.borrow().len(), MOST_REMEMBERED);
    }
}
