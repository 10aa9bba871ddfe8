//! The traffic of a mesh as operators see it: edges between workloads from both ends, and what each workload and each
//! service adds up to. Pure. What is here is what `-o json` prints: names stay, and more may be added.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::{figures::quantile_ms, id::WorkloadId};
use serde::{Deserialize, Serialize};

pub use super::counts::Counts;
use super::sidecar::{Counted, Key, Sidecar};

/// What workloads are called, `namespace/name`, by identity.
pub type Names = HashMap<WorkloadId, String>;

/// The traffic of a mesh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Over how many seconds rates, success and latencies are taken.
    pub window_seconds: u64,
    /// How many sidecars told.
    pub sidecars: usize,
    /// How many sidecars the mesh has: where these are more, the rest are connected to other replicas, or not yet.
    #[serde(default)]
    pub known_sidecars: usize,
    /// There was more than is kept count of.
    pub left_out: bool,
    /// Who talks to whom.
    pub edges: Vec<Edge>,
    /// What each workload with a sidecar adds up to, by its own word.
    pub workloads: Vec<Workload>,
    /// What each service adds up to, by the word of those who call it.
    pub services: Vec<Service>,
}

/// One workload talks to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Who asks.
    pub from: End,
    /// Who is asked.
    pub to: End,
    /// How it was protected; `None`: nothing got through.
    pub tls: Option<Tls>,
    /// By which services it was asked for.
    pub services: Vec<String>,
    /// What the asker's sidecars count.
    pub source: Option<Side>,
    /// What the asked one's sidecars count.
    pub destination: Option<Side>,
}

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// `namespace/name` of a workload or a service; else a word.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The proven SPIFFE ID of a workload.
    pub identity: Option<String>,
}

/// What an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Somebody with a proven identity.
    Workload,
    /// A service that no proven workload answered for.
    Service,
    /// Nobody has proven who it is, and no name is known.
    Unknown,
    /// More ends than a sidecar counts one by one.
    Other,
}

/// How traffic was protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tls {
    /// Mutual TLS, all of it.
    Mtls,
    /// In plaintext, all of it.
    None,
    /// Some of it in plaintext.
    Mixed,
}

/// What the sidecars of one end count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// `None`: they have not told long enough.
    pub requests_per_second: Option<f64>,
    /// The part of requests, or where there are none of streams, that neither failed nor were denied; `None`: there were
    /// none in the window.
    pub success: Option<f64>,
    /// Half of the requests took no longer.
    pub p50_ms: Option<f64>,
    /// See above: 95 of 100.
    pub p95_ms: Option<f64>,
    /// See above: 99 of 100.
    pub p99_ms: Option<f64>,
    /// Opaque streams open now.
    pub streams_open: u64,
    /// Counted in the window.
    pub window: Counts,
    /// Counted since the sidecars began.
    pub total: Counts,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `namespace/name`.
    pub name: String,
    /// Its SPIFFE ID.
    pub identity: String,
    /// How many sidecars of it tell.
    pub sidecars: usize,
    /// What it is asked.
    pub inbound: Side,
    /// What it asks.
    pub outbound: Side,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    /// What it is asked.
    pub side: Side,
}

// Sums of several sidecars.
#[derive(Default)]
struct Sum {
    rate: Option<f64>,
    open: u64,
    window: Counts,
    total: Counts,
}

#[derive(Default)]
struct Both {
    services: BTreeSet<Arc<str>>,
    source: Option<Sum>,
    destination: Option<Sum>,
    mtls: u64,
    plain: u64,
}

#[derive(Default)]
struct Own {
    sidecars: usize,
    inbound: Sum,
    outbound: Sum,
}

impl View {
    pub(super) fn of<'a>(
        sidecars: impl Iterator<Item = &'a Sidecar>,
        window: Duration,
        names: &Names,
        now: Instant,
    ) -> Self {
        let mut edges: BTreeMap<(End, End), Both> = BTreeMap::new();
        let mut workloads: BTreeMap<End, Own> = BTreeMap::new();
        let mut services: BTreeMap<Arc<str>, Sum> = BTreeMap::new();
        let mut view = Self { window_seconds: window.as_secs(), ..Self::default() };
        for sidecar in sidecars {
            view.sidecars += 1;
            view.left_out |= sidecar.left_out();
            let covered = sidecar.covered(window, now);
            let own = End::workload(&sidecar.id, names);
            let of_workload = workloads.entry(own.clone()).or_default();
            of_workload.sidecars += 1;
            for (key, counted) in sidecar.all() {
                let added = covered.map(|covered| (counted.within(&covered), covered.length));
                let peer = End::peer(key, names);
                let (ends, of_own) = if key.outbound {
                    ((own.clone(), peer), &mut of_workload.outbound)
                } else {
                    ((peer, own.clone()), &mut of_workload.inbound)
                };
                of_own.add(counted, added);
                let both = edges.entry(ends).or_default();
                both.add(key, counted, added);
                if let Some(service) = &key.service {
                    services.entry(Arc::clone(service)).or_default().add(counted, added);
                }
            }
        }
        view.edges = edges.into_iter().map(|((from, to), both)| both.edge(from, to)).collect();
        view.workloads = workloads.into_iter().filter_map(|(end, own)| own.workload(end)).collect();
        let service = |(name, sum): (Arc<str>, Sum)| Service { name: name.to_string(), side: sum.side() };
        view.services = services.into_iter().map(service).collect();
        view
    }

    /// Only what has an end in `namespace`.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        let is_in = |name: &str| name.split_once('/').is_some_and(|(of, _)| of == namespace);
        self.edges.retain(|edge| is_in(&edge.from.name) || is_in(&edge.to.name));
        self.workloads.retain(|workload| is_in(&workload.name));
        self.services.retain(|service| is_in(&service.name));
        self
    }
}

impl Edge {
    /// The word of whoever knows it better: the one who was asked, if it has a sidecar.
    #[must_use]
    pub fn best(&self) -> Option<&Side> {
        self.destination.as_ref().or(self.source.as_ref())
    }
}

impl End {
    pub(crate) fn workload(id: &WorkloadId, names: &Names) -> Self {
        let account = || format!("{}/{}", id.namespace(), id.service_account());
        let name = names.get(id).cloned().unwrap_or_else(account);
        Self { name, kind: Kind::Workload, identity: Some(id.to_string()) }
    }

    fn peer(key: &Key, names: &Names) -> Self {
        let nameless = |name: &str, kind| Self { name: name.to_owned(), kind, identity: None };
        match (&key.peer, &key.service) {
            (Some(peer), _) => Self::workload(peer, names),
            _ if key.other => nameless("other", Kind::Other),
            (None, Some(service)) => nameless(service, Kind::Service),
            (None, None) => nameless("unknown", Kind::Unknown),
        }
    }
}

impl Both {
    fn add(&mut self, key: &Key, counted: &Counted, added: Option<(Counts, Duration)>) {
        let side = if key.outbound { &mut self.source } else { &mut self.destination };
        side.get_or_insert_default().add(counted, added);
        // Who was denied over mutual TLS was protected; who failed without it may not have said a word.
        let (seen, told) = if key.mtls {
            (&mut self.mtls, counted.total.requests.saturating_add(counted.total.streams))
        } else {
            (&mut self.plain, counted.total.passed())
        };
        *seen = seen.saturating_add(told).saturating_add(counted.streams_open);
        self.services.extend(key.service.clone());
    }

    fn edge(self, from: End, to: End) -> Edge {
        Edge {
            from,
            to,
            tls: match (self.mtls, self.plain) {
                (0, 0) => None,
                (_, 0) => Some(Tls::Mtls),
                (0, _) => Some(Tls::None),
                _ => Some(Tls::Mixed),
            },
            services: self.services.iter().map(ToString::to_string).collect(),
            source: self.source.map(|sum| sum.side()),
            destination: self.destination.map(|sum| sum.side()),
        }
    }
}

impl Own {
    fn workload(self, end: End) -> Option<Workload> {
        let Self { sidecars, inbound, outbound } = self;
        let (inbound, outbound) = (inbound.side(), outbound.side());
        Some(Workload { name: end.name, identity: end.identity?, sidecars, inbound, outbound })
    }
}

impl Sum {
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^52")]
    fn add(&mut self, counted: &Counted, added: Option<(Counts, Duration)>) {
        self.open = self.open.saturating_add(counted.streams_open);
        self.total += &counted.total;
        if let Some((added, length)) = added {
            self.window += &added;
            let rate = added.requests as f64 / length.as_secs_f64();
            self.rate = Some(self.rate.unwrap_or_default() + rate);
        }
    }

    fn side(&self) -> Side {
        let Self { rate, open, window, total } = self;
        let quantile = |part| quantile_ms(&window.durations, part).map(rounded);
        Side {
            requests_per_second: rate.map(rounded),
            success: success(window),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            streams_open: *open,
            window: *window,
            total: *total,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^52")]
fn success(window: &Counts) -> Option<f64> {
    let (all, lost) = match window.requests {
        0 => (window.streams, window.stream_failures.saturating_add(window.streams_denied)),
        requests => (requests, window.failures.saturating_add(window.denied)),
    };
    (all > 0).then(|| rounded(all.saturating_sub(lost) as f64 / all as f64))
}

// Microseconds are as much as is known; and nobody reads seventeen digits.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use douane_proto::{
        figures::{BUCKETS, bucket},
        wire,
    };

    use super::*;
    use crate::traffic::Traffic;

    fn id(account: &str) -> WorkloadId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    fn edge(outbound: bool, peer: &str, requests: u64) -> wire::Edge {
        let mut durations = vec![0; BUCKETS];
        durations[bucket(Duration::from_micros(900))] = requests;
        let peer = id(peer).to_string();
        wire::Edge { outbound, mtls: true, peer, requests, durations, ..wire::Edge::default() }
    }

    fn told(edges: Vec<wire::Edge>) -> wire::Figures {
        wire::Figures { epoch: 1, age: 10_000, edges, more: false }
    }

    const WINDOW: Duration = Duration::from_secs(60);

    fn start() -> Instant {
        Instant::now() + Duration::from_secs(100)
    }

    #[test]
    fn an_edge_is_seen_from_both_ends_and_replicas_add_up() {
        let (traffic, now) = (Traffic::default(), start());
        let web = traffic.attend("shop/web-1", &id("web"), now);
        let replicas = ["shop/orders-1", "shop/orders-2"].map(|pod| traffic.attend(pod, &id("orders"), now));
        let call = wire::Edge { service: "shop/orders".to_owned(), ..edge(true, "orders", 20) };
        web.takes(&told(vec![call]), now);
        for replica in &replicas {
            let denied = wire::Edge { denied: 1, failures: 1, ..edge(false, "web", 10) };
            replica.takes(&told(vec![denied]), now);
        }
        let names = Names::from([(id("web"), "shop/web-deployment".to_owned())]);

        let view = traffic.view(WINDOW, &names, now);

        assert_eq!((view.sidecars, view.edges.len()), (3, 1));
        let edge = &view.edges[0];
        assert_eq!((edge.from.name.as_str(), edge.to.name.as_str()), ("shop/web-deployment", "shop/orders"));
        assert_eq!((edge.tls, edge.services.as_slice()), (Some(Tls::Mtls), &["shop/orders".to_owned()][..]));
        let (source, destination) = (edge.source.unwrap(), edge.destination.unwrap());
        assert_eq!((source.requests_per_second, source.success), (Some(2.0), Some(1.0)));
        assert_eq!((destination.requests_per_second, destination.success), (Some(2.0), Some(0.8)));
        assert_eq!((destination.window.requests, destination.total.denied), (20, 2));
        assert_eq!(destination.p50_ms, Some(0.768));
        assert_eq!(view.services[0].side.window.requests, 20);
        let orders = view.workloads.iter().find(|workload| workload.name == "shop/orders").unwrap();
        assert_eq!(
            (orders.sidecars, orders.inbound.window.requests, orders.outbound.window.requests),
            (2, 20, 0)
        );
    }

    #[test]
    fn protection_is_told_of_what_got_through_only() {
        let (traffic, now) = (Traffic::default(), start());
        let web = traffic.attend("shop/web-1", &id("web"), now);
        let to = |service: &str, mtls, requests, failures| wire::Edge {
            outbound: true,
            mtls,
            service: service.to_owned(),
            requests,
            failures,
            ..wire::Edge::default()
        };
        web.takes(
            &told(vec![
                to("shop/a", false, 3, 0),
                to("shop/b", false, 3, 3),
                to("shop/c", true, 3, 0),
                to("shop/c", false, 1, 0),
            ]),
            now,
        );

        let view = traffic.view(WINDOW, &Names::new(), now);

        let tls: Vec<_> = view.edges.iter().map(|edge| (edge.to.name.as_str(), edge.tls)).collect();
        assert_eq!(tls, [("shop/a", Some(Tls::None)), ("shop/b", None), ("shop/c", Some(Tls::Mixed))]);
        assert_eq!(view.clone().in_namespace("shop").edges.len(), 3);
        assert_eq!(view.in_namespace("town").edges.len(), 0);
    }

    #[test]
    fn a_sidecar_that_has_gone_is_forgotten_and_one_that_comes_back_counts_once() {
        let (traffic, now) = (Traffic::default(), Instant::now());
        let first = traffic.attend("shop/web-1", &id("web"), now);
        first.takes(&told(vec![edge(true, "orders", 20)]), now);
        let second = traffic.attend("shop/web-1", &id("web"), now);
        drop(first);
        second.takes(&told(vec![edge(true, "orders", 20)]), now);
        let requests = |view: &View| view.edges[0].source.unwrap().window.requests;
        let long_after = now + Duration::from_secs(50);
        assert_eq!(requests(&traffic.view(WINDOW, &Names::new(), long_after)), 20);

        drop(second);

        assert_eq!(requests(&traffic.view(WINDOW, &Names::new(), now)), 20, "it may come back");
        let view = traffic.view(WINDOW, &Names::new(), long_after);
        assert_eq!((view.sidecars, view.edges.len()), (0, 0));
    }

    #[test]
    fn of_all_sidecars_together_no_more_edges_are_kept_than_the_cap() {
        let (most, now) = (1000, start());
        let traffic = Traffic::bounded(most);
        let mut tellings = Vec::new();
        for sidecar in 0..=most / 250 {
            let telling = traffic.attend(&format!("shop/web-{sidecar}"), &id("web"), now);
            let edges = (0..250).map(|number| edge(true, &format!("a{sidecar}-{number}"), 1)).collect();
            telling.takes(&told(edges), now);
            tellings.push(telling);
        }
        let view = traffic.view(WINDOW, &Names::new(), now);
        assert_eq!((view.edges.len(), view.left_out), (most, true));
    }
}
