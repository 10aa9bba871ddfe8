//! Whom sidecars trust, as one thing that is watched: our own authority's bundle, and those of other trust domains.

use std::sync::Arc;

use douane_proto::{
    bundle::ForeignBundle,
    svid::TrustBundle,
    wire::{Delta, FederatedBundle, FederatedBundles},
};
use tokio::sync::watch::{self, error::RecvError};

/// Whom sidecars trust, now and later.
#[derive(Clone)]
pub struct Trust {
    /// Those whom our own authority vouches for.
    pub bundle: watch::Receiver<Arc<TrustBundle>>,
    /// Those of other trust domains, each by its own bundle.
    pub federated: watch::Receiver<Arc<[ForeignBundle]>>,
}

/// What one sidecar was told of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Told {
    bundle: Arc<TrustBundle>,
    federated: Arc<[ForeignBundle]>,
}

impl Trust {
    /// As it is now.
    pub(crate) fn now(&self) -> Told {
        Told { bundle: Arc::clone(&self.bundle.borrow()), federated: Arc::clone(&self.federated.borrow()) }
    }

    /// Waits for a change; an error when nobody will ever make one.
    pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
        tokio::select! {
            changed = self.bundle.changed() => changed,
            changed = self.federated.changed() => changed,
        }
    }
}

impl Told {
    /// Puts into `delta` what is other than what `before` was, or all where nothing was told before.
    pub(crate) fn since(&self, before: Option<&Self>, delta: &mut Delta) {
        if before.is_none_or(|before| before.bundle != self.bundle) {
            delta.bundle = Some((&*self.bundle).into());
        }
        if before.is_none_or(|before| before.federated != self.federated) {
            let bundles = self.federated.iter().map(FederatedBundle::from).collect();
            delta.federated = Some(FederatedBundles { bundles });
        }
    }
}
