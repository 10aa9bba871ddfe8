//! One question to one external authorizer: within its time, and of a bounded number at once.

use std::{cell::Cell, time::Duration};

use douane_proto::policy::{Provider, ProviderProtocol};
use tokio::{sync::Semaphore, time::Instant};
use tracing::warn;

use super::{
    grpc, http,
    question::{Question, Said, Shown},
    road::{Call, Road},
};

/// Questions of one sidecar in flight; what comes above waits, within its time.
const MOST_AT_ONCE: usize = 256;
/// A provider that is down fails with every request; once in this time is enough to say so.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Asks.
#[derive(Debug)]
pub(super) struct Asker {
    road: Road,
    places: Semaphore,
    told: Cell<Option<Instant>>,
}

impl Asker {
    pub(super) fn new(road: Road) -> Self {
        Self { road, places: Semaphore::new(MOST_AT_ONCE), told: Cell::default() }
    }

    /// Asks `provider`.
    ///
    /// # Errors
    /// Why there is no answer that could be understood.
    pub(super) async fn ask(
        &self,
        provider: &Provider,
        question: Question<'_>,
        body: Option<Shown>,
    ) -> Result<Said, String> {
        let asked = tokio::time::timeout(provider.timeout, self.put(provider, question, body)).await;
        let said = asked.unwrap_or_else(|_| {
            Err(format!("no answer within {}", humantime::format_duration(provider.timeout)))
        });
        if let Err(why) = &said {
            self.tell(provider, why);
        }
        said
    }

    async fn put(
        &self,
        provider: &Provider,
        question: Question<'_>,
        body: Option<Shown>,
    ) -> Result<Said, String> {
        let _place = self.places.acquire().await.map_err(|_| "the sidecar ends".to_owned())?;
        let request = match &provider.protocol {
            ProviderProtocol::Grpc => grpc::question(provider, question, body),
            ProviderProtocol::Http(check) => http::question(check, question.facts, body),
        }?;
        let call = Call { host: provider.host.clone(), port: provider.port, request };
        let reply = self.road.go(call).await?;
        match &provider.protocol {
            ProviderProtocol::Grpc => grpc::answer(&reply),
            ProviderProtocol::Http(check) => http::answer(reply, check),
        }
    }

    fn tell(&self, provider: &Provider, why: &str) {
        let now = Instant::now();
        if self.told.get().is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return;
        }
        self.told.set(Some(now));
        let Provider { name, fail_open, .. } = provider;
        warn!(provider = name, fail_open, why, "an external authorizer could not be asked");
    }
}
