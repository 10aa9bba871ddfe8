//! Who is believed besides those whom our own roots vouch for under our own name: other names of our trust domain, and other
//! trust domains, each by its own bundle.

use std::sync::Arc;

use douane_proto::{bundle::ForeignBundle, id::TrustDomain};

/// Whom else a handshake believes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Beyond {
    /// Other names of our own trust domain; its roots vouch for them as well.
    pub aliases: Arc<[TrustDomain]>,
    /// Other trust domains.
    pub federated: Arc<[ForeignBundle]>,
}

impl Beyond {
    /// Is it the very same value? Equal ones may say no.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.aliases, &other.aliases) && Arc::ptr_eq(&self.federated, &other.federated)
    }

    /// Does it say the same of this trust domain? What a partner publishes is news to its own peers' sessions alone.
    pub(super) fn is_same_for(&self, domain: &TrustDomain, other: &Self) -> bool {
        self.aliases == other.aliases && self.of(domain) == other.of(domain)
    }

    fn of(&self, domain: &TrustDomain) -> Option<&ForeignBundle> {
        self.federated.iter().find(|bundle| bundle.trust_domain == *domain)
    }
}
