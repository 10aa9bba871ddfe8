//! The life of one key set: fetched, refreshed, and kept for a while when it can no longer be fetched.

use std::{sync::Arc, time::Duration};

use douane_proto::resource::KeySource;
use hyper::Uri;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{Shared, document, place};
use crate::{
    fetch::{self, Chosen, Origin},
    metrics::KeySetState,
};

/// Longer documents are refused; a key set has a few KiB.
const MAX_BYTES: usize = 256 * 1024;
/// After the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// An issuer that comes back is noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Source {
    source: KeySource,
    /// How long one fetch may take, now.
    timeout: watch::Receiver<Duration>,
    shared: Arc<Shared>,
    /// When it was fetched last, or taken over from an earlier control plane.
    good: Option<Instant>,
    /// How old it was then.
    age: Duration,
    /// Since it was fetched last.
    failures: u32,
    /// What was said last.
    failing: Option<String>,
}

impl Source {
    /// One of which a set of this age is known already, or none.
    pub(super) fn new(
        source: KeySource,
        age: Option<Duration>,
        timeout: watch::Receiver<Duration>,
        shared: Arc<Shared>,
    ) -> Self {
        let good = age.map(|_| Instant::now());
        Self { source, timeout, shared, good, age: age.unwrap_or_default(), failures: 0, failing: None }
    }

    /// Keeps it up to date for as long as it is wanted.
    pub(super) async fn run(mut self) {
        loop {
            let fetched = self.fetch().await;
            self.shared.metrics.key_fetch(&fetched);
            match fetched {
                Ok(set) => self.take(set).await,
                Err(error) => self.fail(error),
            }
            time::sleep(self.pause()).await;
        }
    }

    async fn fetch(&self) -> Result<String, String> {
        // Closed never; without a place it would only go on.
        let _place = self.shared.places.acquire().await;
        let configuration = match &self.source {
            KeySource::Inline => return Err("its keys stand in the rule".to_owned()),
            KeySource::Set(url) => return document::key_set(&self.document(url).await?),
            KeySource::Configuration(url) => url,
        };
        let found = document::keys_of_issuer(&self.document(configuration).await?, configuration)?;
        document::key_set(&self.document(&found).await?)
    }

    async fn document(&self, url: &str) -> Result<Vec<u8>, String> {
        let terms = &self.shared.terms;
        let url: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
        let origin = Origin { url, tls: terms.tls.clone() };
        let chosen = Chosen::ByResource(&terms.guard);
        let time = *self.timeout.borrow();
        fetch::url(&origin, fetch::Terms { bytes: MAX_BYTES, time, chosen }).await
    }

    async fn take(&mut self, set: String) {
        if self.failing.take().is_some() {
            tracing::info!(keys = place(&self.source), "a key set can be fetched again");
        }
        (self.good, self.age, self.failures) = (Some(Instant::now()), Duration::ZERO, 0);
        self.shared.publish(&self.source, &set);
        let (kept, source) = (self.shared.terms.kept.clone(), self.source.clone());
        let keeping = tokio::task::spawn_blocking(move || kept.keep(&source, &set)).await;
        if let Ok(Err(error)) = keeping {
            tracing::error!(%error, keys = place(&self.source), "a key set cannot be kept for the next start");
        }
    }

    fn fail(&mut self, error: String) {
        self.failures = self.failures.saturating_add(1);
        let age = |good: Instant| good.elapsed().saturating_add(self.age);
        let is_over = self.good.is_some_and(|good| age(good) >= self.shared.terms.keep_for);
        if is_over {
            self.good = None;
            self.shared.drop_set(&self.source);
        }
        let state = if self.good.is_some() { KeySetState::Old } else { KeySetState::Missing };
        self.shared.metrics.key_set(place(&self.source), state);
        if self.failing.as_ref() == Some(&error) && !is_over {
            return;
        }
        let keys = place(&self.source);
        match state {
            KeySetState::Old => {
                tracing::warn!(keys, error, "a key set cannot be fetched; the last good one stays");
            }
            _ => tracing::error!(keys, error, "a key set cannot be fetched; its tokens are refused"),
        }
        self.failing = Some(error);
    }

    // Not all at once, neither the sets of one control plane nor the control planes of one issuer.
    fn pause(&self) -> Duration {
        let every = self.shared.terms.refresh_every;
        if self.failures == 0 {
            return every.mul_f64(rand::random_range(0.8..1.0));
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(10));
        doubled.min(LONGEST_PAUSE).min(every).mul_f64(rand::random_range(0.5..1.0))
    }
}
