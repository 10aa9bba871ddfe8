//! All figures of the control plane, in one registry (`serve`: the small listener that shows them).
//!
//! Knows no room: rooms hand values in.

mod serve;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use self::serve::{Status, serve, serve_apart};

/// From a tenth of a millisecond to what nobody waits for.
const ISSUE_SECONDS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 5.0];

/// Namespaces with pods without sidecars that have a figure of their own; what is in others is counted in one without a name.
const MOST_NAMESPACES: usize = 200;

/// The figures of one control plane.
pub struct Metrics {
    registry: Registry,
    issued: Family<Evidence, Counter>,
    refused: Family<Reason, Counter>,
    issue_time: Histogram,
    clock_moved: Gauge<f64, AtomicU64>,
    outage_budget: Gauge,
    streams: Gauge,
    deltas: Counter,
    lookups: Counter,
    authority_expires: Family<Which, Gauge>,
    resource_errors: Gauge,
    resource_objects: Gauge,
    reloads: Counter,
    policies_served: Gauge,
    unmeshed: Family<Unmeshed, Gauge>,
    handshakes_failed: Counter,
    complaints: Counter,
    bundles_served: Family<Code, Counter>,
    admissions: Family<Outcome, Counter>,
    foreign_fetches: Family<ForeignFetch, Counter>,
    foreign_fetched: Family<Domain, Gauge>,
    foreign_expires: Family<Domain, Gauge>,
    key_fetches: Family<Outcome, Counter>,
    key_sets: Family<State, Gauge>,
    /// Which state each key set is in, to count it in one only.
    key_states: Mutex<HashMap<String, KeySetState>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unmeshed {
    namespace: String,
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Domain {
    trust_domain: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForeignFetch {
    trust_domain: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// What is known of the key set of a token issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySetState {
    /// The latest one.
    Good,
    /// The last good one; it cannot be fetched anew.
    Old,
    /// Nothing: tokens are refused.
    Missing,
}

impl KeySetState {
    fn label(self) -> State {
        let state = match self {
            Self::Good => "good",
            Self::Old => "old",
            Self::Missing => "missing",
        };
        State { state }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evidence {
    evidence: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Which {
    authority: &'static str,
}

/// What was read of the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceFigures {
    /// Files and objects in error now, and watches that are broken.
    pub errors: usize,
    /// Objects in force.
    pub objects: usize,
    /// Are policies served at all?
    pub served: Served,
}

/// Are policies served at all?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Served {
    /// Yes.
    #[default]
    Yes,
    /// No: of a law that cannot be read it is not even known whom it governs.
    No,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All figures, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("douane_ca"),
            issued: Family::default(),
            refused: Family::default(),
            issue_time: Histogram::new(ISSUE_SECONDS),
            clock_moved: Gauge::default(),
            outage_budget: Gauge::default(),
            streams: Gauge::default(),
            deltas: Counter::default(),
            lookups: Counter::default(),
            authority_expires: Family::default(),
            resource_errors: Gauge::default(),
            resource_objects: Gauge::default(),
            reloads: Counter::default(),
            policies_served: Gauge::default(),
            unmeshed: Family::default(),
            handshakes_failed: Counter::default(),
            complaints: Counter::default(),
            bundles_served: Family::default(),
            admissions: Family::default(),
            foreign_fetches: Family::default(),
            foreign_fetched: Family::default(),
            foreign_expires: Family::default(),
            key_fetches: Family::default(),
            key_sets: Family::default(),
            key_states: Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("issued", "Certificates issued", self.issued.clone());
        registry.register("refused", "Certificates refused, by reason", self.refused.clone());
        registry.register_with_unit(
            "issue",
            "Time from a request for a certificate to its record on disk",
            Unit::Seconds,
            self.issue_time.clone(),
        );
        registry.register_with_unit(
            "clock_moved",
            "How far the wall clock was set since the start, forwards positive",
            Unit::Seconds,
            self.clock_moved.clone(),
        );
        registry.register_with_unit(
            "outage_budget",
            "How long the mesh would live without us: until the first certificate in use ends; -1 when none is known",
            Unit::Seconds,
            self.outage_budget.clone(),
        );
        registry.register("discovery_streams", "Open discovery streams", self.streams.clone());
        registry.register("discovery_deltas", "Deltas sent to sidecars", self.deltas.clone());
        registry.register("discovery_lookups", "Look-ups answered", self.lookups.clone());
        registry.register(
            "discovery_complaints",
            "Complaints of sidecars about what they were sent",
            self.complaints.clone(),
        );
        registry.register_with_unit(
            "authority_expires_timestamp",
            "When a certificate of the authority ends, in time since 1970",
            Unit::Seconds,
            self.authority_expires.clone(),
        );
        registry.register(
            "resource_errors",
            "Resource files and objects in error now",
            self.resource_errors.clone(),
        );
        registry.register("admissions", "Questions of the API server answered", self.admissions.clone());
        registry.register("resource_objects", "Resource objects in force", self.resource_objects.clone());
        registry.register("resource_reloads", "Changes of resources taken over", self.reloads.clone());
        registry.register(
            "policies_served",
            "1 when policies are served, 0 when a law is unreadable as a whole",
            self.policies_served.clone(),
        );
        registry.register(
            "unmeshed_pods",
            "Pods that ought to have a sidecar and have none, by namespace and cause",
            self.unmeshed.clone(),
        );
        registry.register(
            "handshakes_failed",
            "TLS handshakes that failed at our listener",
            self.handshakes_failed.clone(),
        );
        registry.register(
            "bundle_endpoint_requests",
            "Requests to the bundle endpoint, by the answer's code",
            self.bundles_served.clone(),
        );
        registry.register(
            "federation_fetches",
            "Fetches of other trust domains' bundles",
            self.foreign_fetches.clone(),
        );
        registry.register_with_unit(
            "federation_bundle_fetched_timestamp",
            "When the bundle of another trust domain was fetched last, in time since 1970; 0 for never",
            Unit::Seconds,
            self.foreign_fetched.clone(),
        );
        registry.register_with_unit(
            "federation_bundle_expires_timestamp",
            "When the last root of another trust domain ends, in time since 1970; 0 where it has none",
            Unit::Seconds,
            self.foreign_expires.clone(),
        );
        registry.register("jwks_fetches", "Fetches of token issuers' key sets", self.key_fetches.clone());
        registry.register("jwks_sets", "Token issuers' key sets, by what is known", self.key_sets.clone());
    }

    /// A question of the admission webhook was answered.
    pub fn admission(&self, outcome: &'static str) {
        self.admissions.get_or_create(&Outcome { outcome }).inc();
    }

    /// The bundle endpoint answered.
    pub fn bundle_served(&self, code: u16) {
        self.bundles_served.get_or_create(&Code { code }).inc();
    }

    /// The bundle of another trust domain was fetched, or not.
    pub fn foreign_fetch<T, E>(&self, trust_domain: &str, fetched: &Result<T, E>) {
        let outcome = if fetched.is_ok() { "fetched" } else { "failed" };
        let labels = ForeignFetch { trust_domain: trust_domain.to_owned(), outcome };
        self.foreign_fetches.get_or_create(&labels).inc();
    }

    /// When the bundle of another trust domain was fetched, and its last root ends: seconds since 1970.
    pub fn foreign_bundle(&self, trust_domain: &str, (fetched, expires): (Option<i64>, Option<i64>)) {
        let labels = Domain { trust_domain: trust_domain.to_owned() };
        self.foreign_fetched.get_or_create(&labels).set(fetched.unwrap_or(0));
        self.foreign_expires.get_or_create(&labels).set(expires.unwrap_or(0));
    }

    /// A key set was fetched, or not.
    pub fn key_fetch<T, E>(&self, fetched: &Result<T, E>) {
        let outcome = if fetched.is_ok() { "fetched" } else { "failed" };
        self.key_fetches.get_or_create(&Outcome { outcome }).inc();
    }

    /// What is known of a key set from now on.
    pub fn key_set(&self, place: &str, state: KeySetState) {
        let mut states = self.key_states.lock().unwrap_or_else(PoisonError::into_inner);
        let before = states.insert(place.to_owned(), state);
        self.count_key_set(before, Some(state));
    }

    /// Nobody wants a key set any more.
    pub fn forget_key_set(&self, place: &str) {
        let before = self.key_states.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
        self.count_key_set(before, None);
    }

    fn count_key_set(&self, before: Option<KeySetState>, now: Option<KeySetState>) {
        if let Some(before) = before {
            self.key_sets.get_or_create(&before.label()).dec();
        }
        if let Some(now) = now {
            self.key_sets.get_or_create(&now.label()).inc();
        }
    }

    /// A certificate was issued.
    pub fn issued(&self, evidence: &'static str, took: Duration) {
        self.issued.get_or_create(&Evidence { evidence }).inc();
        self.issue_time.observe(took.as_secs_f64());
    }

    /// How far the wall clock has moved against one that nobody sets, since the start.
    pub fn clock_moved(&self, seconds: f64) {
        self.clock_moved.set(seconds);
    }

    /// How long until the first of those who hold a certificate would be without one, were we away from now on.
    pub fn outage_budget(&self, seconds: i64) {
        self.outage_budget.set(seconds);
    }

    /// A certificate was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A handshake failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// A discovery stream opened; it counts until the value is dropped.
    #[must_use]
    pub fn stream(&self) -> OpenStream {
        self.streams.inc();
        OpenStream(self.streams.clone())
    }

    /// A delta was sent.
    pub fn delta(&self) {
        self.deltas.inc();
    }

    /// A look-up was answered.
    pub fn lookup(&self) {
        self.lookups.inc();
    }

    /// A sidecar complained.
    pub fn complaint(&self) {
        self.complaints.inc();
    }

    /// When the authority's certificates end, seconds since 1970.
    pub fn authority_expires(&self, root: i64, intermediate: i64) {
        self.authority_expires.get_or_create(&Which { authority: "root" }).set(root);
        self.authority_expires.get_or_create(&Which { authority: "intermediate" }).set(intermediate);
    }

    /// Resources were read anew.
    pub fn resources(&self, figures: ResourceFigures) {
        self.reloads.inc();
        self.resource_errors.set(i64::try_from(figures.errors).unwrap_or(i64::MAX));
        self.resource_objects.set(i64::try_from(figures.objects).unwrap_or(i64::MAX));
        self.policies_served.set((figures.served == Served::Yes).into());
    }

    /// The pods that ought to have a sidecar and have none: namespace and cause of each, by namespace.
    pub fn unmeshed<'a>(&self, pods: impl Iterator<Item = (&'a str, &'static str)>) {
        let mut counts: BTreeMap<(&str, &'static str), i64> = BTreeMap::new();
        for (namespace, why) in pods {
            let is_told = counts.len() < MOST_NAMESPACES || counts.contains_key(&(namespace, why));
            *counts.entry((if is_told { namespace } else { "" }, why)).or_default() += 1;
        }
        self.unmeshed.clear();
        for ((namespace, why), count) in counts {
            self.unmeshed.get_or_create(&Unmeshed { namespace: namespace.to_owned(), why }).set(count);
        }
    }

    /// All figures in Prometheus' text form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail; a partial page would still be a page.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Counts an open stream while it lives.
#[derive(Debug)]
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}
