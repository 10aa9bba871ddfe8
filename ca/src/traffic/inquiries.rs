//! What operators ask of sidecars: taps and searches that are open, which sidecar is asked what, and who hears its answer.
//! An inquiry ends when whoever asks lets go of it. Knows neither streams nor sockets.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use douane_proto::{id::WorkloadId, wire};
use tokio::sync::{mpsc, watch};

use super::seen::Seen;
use crate::hex;

/// Sightings on their way to one operator; what he reads too slowly is left out.
const MOST_WAITING: usize = 1024;
/// As long as sidecars read it.
const LONGEST_REQUEST_ID: usize = 128;

/// Which requests a tap is to tell; empty: any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Who asks.
    pub from: BTreeSet<WorkloadId>,
    /// Who is asked.
    pub to: BTreeSet<WorkloadId>,
    /// Services that are asked for.
    pub services: BTreeSet<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// What the path begins with.
    pub path: String,
    /// From this status to that.
    pub status: Option<(u16, u16)>,
    /// Only what was denied.
    pub denied: bool,
    /// Only what failed or was denied.
    pub failed: bool,
    /// From both ends.
    pub both_ends: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Tap(Wanted),
    Search(Sought),
}

/// What is looked for; each that is given counts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sought {
    /// The bytes of a trace (16) or a span (8); none: neither.
    pub id: Vec<u8>,
    /// What a client calls its request; empty: nothing.
    pub request_id: String,
    /// Of either end, with a port or without; empty: none.
    pub address: String,
}

/// Somebody asks.
#[derive(Debug, Clone)]
pub(super) struct Open {
    number: u64,
    what: What,
    hears: mpsc::Sender<Told>,
    // Sidecars that have told all: each counts once.
    answered: Arc<Mutex<HashSet<String>>>,
}

/// An answer.
#[derive(Debug)]
pub enum Told {
    /// A request.
    Seen(Box<Seen>),
    /// So many more than a sidecar may tell.
    LeftOut(u64),
    /// A sidecar has told all that it remembers.
    All,
}

pub(super) type Changes = watch::Receiver<Arc<Vec<Open>>>;

/// All that is asked at present.
#[derive(Debug, Clone)]
pub struct Inquiries {
    open: watch::Sender<Arc<Vec<Open>>>,
    count: Arc<AtomicU64>,
}

/// An inquiry of one operator, open as long as this lives.
#[derive(Debug)]
pub struct Inquiry {
    inquiries: Inquiries,
    number: u64,
    told: mpsc::Receiver<Told>,
}

impl Default for Inquiries {
    fn default() -> Self {
        Self { open: watch::Sender::new(Arc::default()), count: Arc::default() }
    }
}

impl Inquiries {
    pub(super) fn open(&self, what: What) -> Inquiry {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let (hears, told) = mpsc::channel(MOST_WAITING);
        self.open.send_modify(|open| {
            let mut next = Vec::clone(open);
            next.push(Open { number, what, hears, answered: Arc::default() });
            *open = Arc::new(next);
        });
        Inquiry { inquiries: self.clone(), number, told }
    }

    /// Told when something else is asked.
    pub(super) fn changes(&self) -> Changes {
        self.open.subscribe()
    }

    /// What the sidecars of `own` are asked.
    pub(super) fn of(&self, own: &WorkloadId) -> wire::Inquiry {
        let open = Arc::clone(&self.open.borrow());
        let mut inquiry = wire::Inquiry::default();
        for Open { number, what, .. } in open.iter() {
            match what {
                What::Tap(wanted) => inquiry.taps.extend(wanted.tap(*number, own)),
                What::Search(sought) => inquiry.searches.push(sought.search(*number)),
            }
        }
        inquiry
    }

    /// A sidecar answers.
    pub(super) fn hear(&self, told: &wire::Sightings, workload: &str, own: &WorkloadId) {
        let open = Arc::clone(&self.open.borrow());
        let Some(asked) = open.iter().find(|open| open.number == told.number) else { return };
        // A sidecar that was not asked has nothing to say.
        let was_asked = match &asked.what {
            What::Tap(wanted) => wanted.tap(asked.number, own).is_some(),
            What::Search(_) => true,
        };
        if !was_asked {
            return;
        }
        let mut left_out = told.left_out;
        for sighting in &told.sightings {
            let seen = Told::Seen(Box::new(Seen::told(sighting, workload, own)));
            if asked.hears.try_send(seen).is_err() {
                left_out = left_out.saturating_add(1);
            }
        }
        // Whoever reads too slowly for this learns of it with the next one.
        if left_out > 0 {
            let _ = asked.hears.try_send(Told::LeftOut(left_out));
        }
        let mut answered = asked.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last && answered.insert(workload.to_owned()) {
            let _ = asked.hears.try_send(Told::All);
        }
    }
}

impl Inquiry {
    /// The next answer.
    pub async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.inquiries.open.send_modify(|open| {
            let rest = open.iter().filter(|open| open.number != self.number).cloned();
            *open = Arc::new(rest.collect());
        });
    }
}

impl Sought {
    /// What somebody has at hand: a trace id (32 hexadecimal digits) or a span id (16), an address, or whatever else a client
    /// may call its request. `None`: nothing of the kind.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
            return Some(Self { address: text.to_owned(), ..Self::default() });
        }
        let is_id =
            (1..=LONGEST_REQUEST_ID).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
        let bytes = hex::decode(&text.to_ascii_lowercase()).filter(|id| matches!(id.len(), 8 | 16));
        // Some call their requests by sixteen bytes as well.
        is_id.then(|| Self { id: bytes.unwrap_or_default(), request_id: text.to_owned(), ..Self::default() })
    }

    /// A trace.
    #[must_use]
    pub fn trace(id: Vec<u8>) -> Self {
        Self { id, ..Self::default() }
    }

    fn search(&self, number: u64) -> wire::Search {
        let Self { id, request_id, address } = self.clone();
        wire::Search { number, id, request_id, address }
    }
}

impl Wanted {
    // `None`: the sidecar has nothing to do with it.
    fn tap(&self, number: u64, own: &WorkloadId) -> Option<wire::Tap> {
        let asks = self.from.is_empty() || self.from.contains(own);
        let is_asked = (self.to.is_empty() && self.services.is_empty()) || self.to.contains(own);
        let ids = |ids: &BTreeSet<WorkloadId>| ids.iter().map(ToString::to_string).collect();
        let (status_from, status_to) = self.status.unwrap_or_default();
        (asks || is_asked).then(|| wire::Tap {
            number,
            inbound: is_asked,
            outbound: asks,
            from: ids(&self.from),
            to: ids(&self.to),
            services: self.services.iter().cloned().collect(),
            methods: self.methods.clone(),
            path: self.path.clone(),
            status_from: status_from.into(),
            status_to: status_to.into(),
            denied: self.denied,
            failed: self.failed,
            both_ends: self.both_ends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(account: &str) -> WorkloadId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    fn trace() -> What {
        What::Search(Sought::trace(vec![7; 16]))
    }

    #[test]
    fn what_is_looked_for_is_known_by_its_form() {
        let trace = "8d573f80e606528e78bb8b58627c0e6c";
        let found = |text: &str| Sought::of(text).map(|it| (it.id.len(), it.request_id, it.address));
        for (text, id, request_id, address) in [
            (trace, 16, trace, ""),
            ("2ca7484642bec35d", 8, "2ca7484642bec35d", ""),
            ("0192f0c4-7a5e-7c3b-9d7e-0f6a2b1c3d4e", 0, "0192f0c4-7a5e-7c3b-9d7e-0f6a2b1c3d4e", ""),
            ("Req/1", 0, "Req/1", ""),
            ("10.77.0.5", 0, "", "10.77.0.5"),
            ("[fd77::5]:7000", 0, "", "[fd77::5]:7000"),
        ] {
            assert_eq!(found(text), Some((id, request_id.to_owned(), address.to_owned())), "{text}");
        }
        assert_eq!(found(&trace.to_uppercase()).unwrap().0, 16);
        for nothing in ["", "a b", "\u{e9}", "a".repeat(129).as_str()] {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }

    fn sightings(number: u64, many: usize) -> wire::Sightings {
        let sighting = wire::Sighting { trace_id: vec![7; 16], status: 200, ..wire::Sighting::default() };
        wire::Sightings { number, sightings: vec![sighting; many], left_out: 0, last: false }
    }

    #[test]
    fn only_the_sidecars_of_either_end_are_asked_and_only_for_their_side() {
        let inquiries = Inquiries::default();
        let wanted = Wanted { from: [id("web")].into(), to: [id("orders")].into(), ..Wanted::default() };
        let tap = inquiries.open(What::Tap(wanted));

        let asked = |account| inquiries.of(&id(account)).taps;
        assert_eq!((asked("web")[0].inbound, asked("web")[0].outbound), (false, true));
        assert_eq!((asked("orders")[0].inbound, asked("orders")[0].outbound), (true, false));
        assert_eq!(asked("ledger"), []);
        drop(tap);
        assert_eq!(asked("web"), []);
    }

    #[tokio::test]
    async fn whoever_was_not_asked_is_not_heard_and_nobody_answers_for_others() {
        let inquiries = Inquiries::default();
        let wanted = Wanted { from: [id("web")].into(), to: [id("orders")].into(), ..Wanted::default() };
        let (mut tap, mut search) = (inquiries.open(What::Tap(wanted)), inquiries.open(trace()));
        inquiries.hear(&sightings(tap.number, 1), "shop/ledger-1", &id("ledger"));
        inquiries.hear(&sightings(tap.number, 1), "shop/web-1", &id("web"));
        let last = wire::Sightings { last: true, ..sightings(search.number, 0) };
        for workload in ["shop/web-1", "shop/web-1", "shop/orders-1"] {
            inquiries.hear(&last, workload, &id("web"));
        }

        let Some(Told::Seen(seen)) = tap.next().await else { panic!("a request") };
        assert_eq!(seen.told_by, "shop/web-1");
        assert!(tap.told.try_recv().is_err(), "what the ledger's sidecar told is not heard");
        assert!(matches!(search.next().await, Some(Told::All)));
        assert!(matches!(search.next().await, Some(Told::All)));
        assert!(search.told.try_recv().is_err(), "one sidecar answers once");
    }

    #[tokio::test]
    async fn an_answer_reaches_whoever_asked_and_a_slow_reader_is_told_what_he_missed() {
        let inquiries = Inquiries::default();
        let (mut one, mut other) = (inquiries.open(What::Tap(Wanted::default())), inquiries.open(trace()));
        inquiries.hear(&sightings(one.number, 1), "shop/web-1", &id("web"));
        inquiries.hear(
            &wire::Sightings { last: true, ..sightings(other.number, 0) },
            "shop/web-1",
            &id("web"),
        );
        inquiries.hear(&sightings(99, 5), "shop/web-1", &id("web"));

        let Some(Told::Seen(seen)) = one.next().await else { panic!("a request") };
        assert_eq!((seen.told_by.as_str(), seen.status, seen.trace_id.len()), ("shop/web-1", Some(200), 32));
        assert!(matches!(other.next().await, Some(Told::All)));

        inquiries.hear(&sightings(one.number, MOST_WAITING + 9), "shop/web-1", &id("web"));
        for _ in 0..MOST_WAITING {
            assert!(matches!(one.next().await, Some(Told::Seen(_))));
        }
        inquiries.hear(
            &wire::Sightings { left_out: 9, ..sightings(one.number, 0) },
            "shop/web-1",
            &id("web"),
        );
        assert!(matches!(one.next().await, Some(Told::LeftOut(9))));
    }
}
