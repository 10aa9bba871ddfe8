//! One question to one external authorizer: within its time, and of a bounded number at once. A slow authorizer keeps no
//! place of another's.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use douane_proto::policy::{Provider, ProviderProtocol};
use tokio::{sync::Semaphore, time::Instant};
use tracing::warn;

use super::{
    grpc, http,
    question::{Question, Said, Shown},
    road::{Call, Road},
};

/// Questions to one provider in flight; what comes above waits, within its time.
const MOST_AT_ONCE: usize = 256;
/// Providers whose places are remembered while nobody asks them; a mesh has a handful.
const REMEMBERED: usize = 64;
/// A provider that is down fails with every request; once in this time is enough to say so.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Asks.
#[derive(Debug)]
pub(super) struct Asker {
    road: Road,
    /// By the provider's name.
    places: RefCell<HashMap<String, Rc<Semaphore>>>,
    told: Cell<Option<Instant>>,
}

impl Asker {
    pub(super) fn new(road: Road) -> Self {
        Self { road, places: RefCell::default(), told: Cell::default() }
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
        let places = self.places_of(provider);
        let _place = places.acquire().await.map_err(|_| "the sidecar ends".to_owned())?;
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

    fn places_of(&self, provider: &Provider) -> Rc<Semaphore> {
        let mut places = self.places.borrow_mut();
        if let Some(held) = places.get(&provider.name) {
            return Rc::clone(held);
        }
        if places.len() >= REMEMBERED {
            places.retain(|_, held| Rc::strong_count(held) > 1);
        }
        let held = Rc::new(Semaphore::new(MOST_AT_ONCE));
        places.insert(provider.name.clone(), Rc::clone(&held));
        held
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

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use douane_proto::{facts::Facts, id::WorkloadId};
    use futures_util::future::join_all;

    use super::*;
    use crate::authz::road::Reply;

    fn provider(name: &str) -> Provider {
        Provider::new(name, ProviderProtocol::Grpc, name, 80)
    }

    /// Allows at once, except `slow`, which never answers.
    fn road() -> Road {
        Road::new(async |call: Call| {
            if call.host == "slow" {
                std::future::pending::<()>().await;
            }
            let headers = [(HeaderName::from_static("grpc-status"), HeaderValue::from(0))];
            Ok(Reply {
                status: StatusCode::OK,
                headers: headers.into_iter().collect(),
                // A message with an empty status, which is OK.
                body: vec![0, 0, 0, 0, 2, 0x0a, 0x00].into(),
                trailers: HeaderMap::new(),
            })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_authorizer_that_does_not_answer_stalls_no_other_one() {
        let asker = Asker::new(road());
        let local: WorkloadId = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
        let facts = Facts {
            peer: None,
            source: [10, 0, 0, 1].into(),
            remote: [10, 0, 0, 1].into(),
            destination: "10.0.0.2:80".parse().unwrap(),
            sni: None,
            request: None,
        };
        let question = Question { facts: &facts, local: &local };
        let (slow, quick) = (provider("slow"), provider("quick"));
        let stalled = join_all((0..2 * MOST_AT_ONCE).map(|_| asker.ask(&slow, question, None)));

        let (stalled, said) = tokio::join!(stalled, asker.ask(&quick, question, None));

        assert!(matches!(said, Ok(Said::Allow { .. })), "{said:?}");
        assert!(
            stalled.iter().all(|said| said.as_ref().is_err_and(|why| why.contains("no answer within 1s")))
        );
    }

    #[test]
    fn places_of_providers_that_nobody_asks_any_more_are_forgotten() {
        let asker = Asker::new(road());
        let held = asker.places_of(&provider("held"));

        for number in 0..10 * REMEMBERED {
            asker.places_of(&provider(&number.to_string()));
        }

        assert!(asker.places.borrow().len() <= REMEMBERED);
        assert!(Rc::ptr_eq(&held, &asker.places_of(&provider("held"))));
    }
}
