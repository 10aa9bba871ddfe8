//! Other trust domains: our bundle for them, theirs for our sidecars (SPIFFE Federation). Each domain's bundle vouches for
//! identities of that domain alone; they are never joined, and none takes the place of another.
//!
//! Knows neither TLS (handed in) nor who is told of a bundle (`discovery`).
//! - `endpoint`: where others fetch our bundle
//! - `relation`: one relationship; `life`: what goes on in it; `take`: is what was fetched newer, and when to look again;
//!   `kept`: what outlives us; `known`: what is known of all

mod endpoint;
mod kept;
mod known;
mod life;
mod relation;
mod take;

use std::{collections::BTreeSet, sync::Arc};

use douane_proto::bundle::ForeignBundle;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use life::Life;

pub use endpoint::{BUNDLE_PATH, Published, visit};
pub use kept::Kept;
pub use known::{DomainStatus, Known};
pub use relation::{ByRoots, Relation, Server};

/// The bundles of other trust domains, live.
pub struct Federation {
    lives: Vec<Life>,
    known: Known,
}

impl Federation {
    /// The given relationships, with the bundles that were fetched last; those of domains that are not among them any more
    /// are forgotten.
    ///
    /// # Errors
    /// A first bundle that cannot be used.
    pub fn open(relations: Vec<Relation>, kept: &Kept, metrics: Arc<Metrics>) -> Result<Self, String> {
        let domains: BTreeSet<_> = relations.iter().map(|relation| relation.trust_domain.clone()).collect();
        kept.forget_others(&domains);
        let known = Known::new(metrics);
        let mut lives = Vec::new();
        for relation in relations {
            lives.push(Life::new(relation, kept.clone(), known.clone())?);
        }
        Ok(Self { lives, known })
    }

    /// The bundles, now and whenever one changes.
    #[must_use]
    pub fn bundles(&self) -> watch::Receiver<Arc<[ForeignBundle]>> {
        self.known.bundles()
    }

    /// What is known, for whoever asks later.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// Keeps all bundles up to date until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut lives: JoinSet<()> = self.lives.into_iter().map(Life::run).collect();
        tokio::select! {
            () = stop.cancelled() => {}
            // They never end by themselves; where there are none, nothing is to be done.
            Some(_) = lives.join_next() => {}
            else => stop.cancelled().await,
        }
    }
}
