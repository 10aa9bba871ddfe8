//! The bundles that an application may verify by: of our own trust domain, and of each that is federated with, under its own
//! name. A domain by which nobody is trusted is left out: what is absent is taken back (Workload API 4.4).

use std::{collections::BTreeMap, sync::Arc};

use douane_proto::{
    bundle::ForeignBundle,
    id::TrustDomain,
    jwt::{self, Keys},
    svid::{Identity, TrustBundle},
};
use tokio::sync::watch;

use super::Source;

// The SPIFFE ID of a trust domain.
fn id_of(domain: &TrustDomain) -> String {
    format!("spiffe://{domain}")
}

/// Bundles, as of one moment.
#[derive(Debug, Clone)]
pub(super) struct Bundles {
    pub(super) own: Arc<TrustBundle>,
    pub(super) federated: Arc<[ForeignBundle]>,
}

impl Bundles {
    /// Roots of others, by the SPIFFE ID of their domain; concatenated DER.
    pub(super) fn foreign_roots(&self) -> BTreeMap<String, Vec<u8>> {
        let others = self.federated.iter().filter(|bundle| !bundle.roots.is_empty());
        others.map(|bundle| (id_of(&bundle.trust_domain), bundle.roots.concat())).collect()
    }

    /// Roots of all.
    pub(super) fn roots(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = self.foreign_roots();
        // The last word on our own domain is ours.
        all.insert(id_of(&self.own.trust_domain), self.own.roots.concat());
        all
    }

    /// Keys for tokens, of all: JSON Web Key Sets.
    pub(super) fn key_sets(&self) -> BTreeMap<String, Vec<u8>> {
        let others = self.federated.iter().filter(|bundle| bundle.keys().is_some());
        let mut all: BTreeMap<_, _> =
            others.map(|bundle| (id_of(&bundle.trust_domain), bundle.jwt_keys.as_bytes().to_vec())).collect();
        let own = jwt::key_set(&self.own.jwt_keys, None).to_string().into_bytes();
        all.insert(id_of(&self.own.trust_domain), own);
        all
    }

    /// The keys of one domain, to verify with.
    pub(super) fn keys_of(&self, domain: &TrustDomain) -> Option<Keys> {
        if *domain == self.own.trust_domain {
            return jwt::keys_of(&self.own.jwt_keys);
        }
        self.federated.iter().find(|bundle| bundle.trust_domain == *domain)?.keys()
    }
}

/// Bundles, live.
#[derive(Debug)]
pub(super) struct Live {
    identity: watch::Receiver<Arc<Identity>>,
    federated: watch::Receiver<Arc<[ForeignBundle]>>,
    last: Option<Bundles>,
}

impl Live {
    pub(super) fn of(source: &Source) -> Self {
        Self { identity: source.identity.clone(), federated: source.federated.clone(), last: None }
    }

    /// As they are now.
    pub(super) fn current(&mut self) -> Bundles {
        let now = Bundles {
            own: Arc::clone(&self.identity.borrow_and_update().bundle),
            federated: Arc::clone(&self.federated.borrow_and_update()),
        };
        self.last = Some(now.clone());
        now
    }

    /// Waits for others than were told. Renewals of our own certificate are nobody's business here.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                Ok(()) = self.identity.changed() => {
                    let now = Arc::clone(&self.identity.borrow_and_update().bundle);
                    if self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(&last.own, &now)) {
                        return;
                    }
                }
                Ok(()) = self.federated.changed() => return,
                // The sidecar ends, and the stream with it.
                else => return std::future::pending().await,
            }
        }
    }
}
