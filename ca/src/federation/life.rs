//! The life of one relationship: fetch the bundle, keep it, tell it, and look again when it is worth it. Whatever the endpoint
//! does, what was good last stays, for this domain alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use douane_proto::bundle::{BundleDocument, MAX_BUNDLE_BYTES};
use tokio::time;

use super::{
    kept::Kept,
    known::{Held, Known},
    relation::{Relation, Server},
    take::{Verdict, pause, verdict},
};
use crate::fetch::{self, Chosen, Origin};

/// From looking up the name to the last byte.
const LIMIT: Duration = Duration::from_secs(10);

/// One relationship.
pub(super) struct Life {
    relation: Relation,
    kept: Kept,
    known: Known,
    held: Option<Held>,
    failures: u32,
    failing: Option<String>,
}

impl Life {
    pub(super) fn new(relation: Relation, kept: Kept, known: Known) -> Result<Self, String> {
        let domain = &relation.trust_domain;
        let first = match &relation.server {
            Server::Web(_) => None,
            Server::Spiffe { first, .. } => Some(
                BundleDocument::parse(first)
                    .map_err(|error| format!("the first bundle of {domain}: {error}"))?,
            ),
        };
        let held = kept.load(&relation).or_else(|| first.map(|document| Held { document, fetched: None }));
        known.tell(&relation, held.as_ref(), None);
        Ok(Self { relation, kept, known, held, failures: 0, failing: None })
    }

    pub(super) async fn run(mut self) {
        loop {
            let fetched = self.fetch().await;
            let taken = match fetched {
                Ok(document) => self.take(document).await,
                Err(error) => Err(error),
            };
            self.known.fetched(&self.relation.trust_domain, &taken);
            match taken {
                Ok(()) => self.succeed(),
                Err(error) => self.fail(error),
            }
            // A first bundle says nothing of when to look: until one is fetched, it is as if there were none.
            let fetched = self.held.as_ref().filter(|held| held.fetched.is_some());
            let held = fetched.map(|held| &held.document);
            time::sleep(pause(held, self.failures, rand::random())).await;
        }
    }

    async fn fetch(&self) -> Result<BundleDocument, String> {
        let tls = match &self.relation.server {
            Server::Web(connector) => connector.clone(),
            // The newest bundle is the one to know the server by.
            Server::Spiffe { by_roots, .. } => {
                by_roots(self.held.as_ref().map_or(&[][..], |held| &held.document.roots))?
            }
        };
        let origin = Origin { url: self.relation.url.clone(), tls: Some(tls) };
        let terms = fetch::Terms { bytes: MAX_BUNDLE_BYTES, time: LIMIT, chosen: Chosen::ByConfiguration };
        let bytes = fetch::url(&origin, terms).await?;
        BundleDocument::parse(&bytes).map_err(|error| format!("{}: {error}", self.relation.url))
    }

    async fn take(&mut self, document: BundleDocument) -> Result<(), String> {
        let domain = &self.relation.trust_domain;
        match verdict(self.held.as_ref().map(|held| &held.document), &document) {
            Verdict::Older { fetched, held } => {
                return Err(format!(
                    "its sequence {fetched} is older than {held}, which we hold; if {domain} really went back, restart us \
                     after removing {}",
                    self.kept.file(domain).display()
                ));
            }
            Verdict::Uncounted => {
                tracing::warn!(%domain, sequence = document.sequence, "a bundle has changed and its sequence has not");
            }
            Verdict::Same | Verdict::Newer => {}
        }
        let is_new = self.held.as_ref().is_none_or(|held| held.document != document);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let held = Held { document, fetched: Some(i64::try_from(now).unwrap_or(i64::MAX)) };
        if is_new {
            let (roots, sequence) = (held.document.roots.len(), held.document.sequence);
            if roots == 0 {
                tracing::error!(%domain, sequence, "the bundle holds no root: nobody of the trust domain is believed any more");
            } else {
                tracing::info!(%domain, roots, sequence, "a new bundle of a federated trust domain");
            }
        }
        let (kept, relation, written) = (self.kept.clone(), self.relation.clone(), held.clone());
        let keeping = tokio::task::spawn_blocking(move || kept.keep(&relation, &written)).await;
        if let Ok(Err(error)) = keeping {
            tracing::error!(%error, %domain, "a bundle cannot be kept for the next start");
        }
        self.held = Some(held);
        Ok(())
    }

    fn succeed(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!(domain = %self.relation.trust_domain, "a bundle can be fetched again");
        }
        self.failures = 0;
        self.known.tell(&self.relation, self.held.as_ref(), None);
    }

    fn fail(&mut self, error: String) {
        self.failures = self.failures.saturating_add(1);
        let domain = &self.relation.trust_domain;
        self.known.tell(&self.relation, self.held.as_ref(), Some(&error));
        if self.failing.as_ref() == Some(&error) {
            return;
        }
        match &self.held {
            Some(_) => tracing::warn!(%domain, error, "a bundle cannot be fetched; the last good one stays"),
            None => tracing::error!(%domain, error, "a bundle cannot be fetched; its identities are refused"),
        }
        self.failing = Some(error);
    }
}
