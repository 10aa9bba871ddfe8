//! What is known of all federated trust domains: their bundles, for sidecars, and how each relationship stands, for operators.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use douane_proto::{
    bundle::{BundleDocument, ForeignBundle},
    id::TrustDomain,
    svid,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::relation::Relation;
use crate::metrics::Metrics;

/// What is known of another trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainStatus {
    /// Its name.
    pub trust_domain: String,
    /// Where its bundle is fetched.
    pub url: String,
    /// How many roots it has; none is known where there is no bundle.
    pub roots: Option<usize>,
    /// Its own count of its changes.
    pub sequence: Option<u64>,
    /// When it was fetched last, seconds since 1970; never, where only the first bundle is there.
    pub fetched: Option<i64>,
    /// When its last root ends, seconds since 1970.
    pub expires: Option<i64>,
    /// Why the last fetch failed, if it did.
    pub failing: Option<String>,
}

/// A bundle that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) document: BundleDocument,
    /// Seconds since 1970; `None`: it is the first one, which an operator gave.
    pub(super) fetched: Option<i64>,
}

impl Held {
    // From then on nobody of the domain is believed.
    pub(super) fn expires(&self) -> Option<i64> {
        self.document.roots.iter().filter_map(|root| svid::ends(root)).max()
    }
}

/// What is known now; clones share it.
#[derive(Clone)]
pub struct Known {
    bundles: Arc<watch::Sender<Arc<[ForeignBundle]>>>,
    statuses: Arc<Mutex<BTreeMap<TrustDomain, DomainStatus>>>,
    metrics: Arc<Metrics>,
}

impl Known {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { bundles: Arc::new(watch::Sender::new(Arc::new([]))), statuses: Arc::default(), metrics }
    }

    pub(super) fn bundles(&self) -> watch::Receiver<Arc<[ForeignBundle]>> {
        self.bundles.subscribe()
    }

    // A bundle was fetched and taken, or not.
    pub(super) fn fetched(&self, domain: &TrustDomain, taken: &Result<(), String>) {
        self.metrics.foreign_fetch(domain.as_str(), taken);
    }

    /// All domains, in order.
    #[must_use]
    pub fn statuses(&self) -> Vec<DomainStatus> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    // `None`: there is no bundle of the domain yet.
    pub(super) fn tell(&self, relation: &Relation, held: Option<&Held>, failing: Option<&str>) {
        let domain = &relation.trust_domain;
        let status = DomainStatus {
            trust_domain: domain.to_string(),
            url: relation.url.to_string(),
            roots: held.map(|held| held.document.roots.len()),
            sequence: held.and_then(|held| held.document.sequence),
            fetched: held.and_then(|held| held.fetched),
            expires: held.and_then(Held::expires),
            failing: failing.map(str::to_owned),
        };
        self.metrics.foreign_bundle(domain.as_str(), (status.fetched, status.expires));
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(domain.clone(), status);
        let Some(held) = held else { return };
        let bundle = ForeignBundle::of(domain.clone(), &held.document);
        self.bundles.send_if_modified(|all| {
            if all.contains(&bundle) {
                return false;
            }
            let others = all.iter().filter(|other| other.trust_domain != *domain).cloned();
            *all = others.chain([bundle]).collect();
            true
        });
    }
}
