//! One kind's watch: a list, then what changes, and the list again where the thread is lost.
//!
//! It never ends by itself; whatever goes wrong is said, and tried again with growing pauses. Knows not what becomes of
//! the objects (`store`).

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use kube::{
    Api, Client, Error,
    api::{ListParams, WatchEvent, WatchParams},
    core::{ApiResource, DynamicObject},
};
use tokio::{sync::mpsc, time};

use super::{
    document::{Document, key},
    kinds::{KINDS, Watched},
    store::Said,
};

/// One answer holds so many objects: an object has 1.5 MiB at most.
const PAGE: u32 = 250;
/// The API server ends a watch after this, so that load spreads among its replicas.
const WATCH_SECONDS: u32 = 290;
/// A watch that says nothing for longer is dead, whatever the network says.
const WATCH_LIMIT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// A page that takes longer is asked for again.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// After something went wrong, doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// An API server that comes back is noticed within this; a random part keeps ten watches from asking at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A kind that nobody installed is looked for so often.
const LOOK_FOR_ABSENT: Duration = Duration::from_secs(5);
/// A kind that was there and is unknown now must stay so for so many looks: an API server that starts may not know all of
/// its kinds yet.
const LOOKS_UNTIL_GONE: u32 = 4;

/// Where a watch says what it sees, with its kind's place in [`KINDS`].
pub(super) type Heard = mpsc::Sender<(usize, Said)>;

/// Watches one kind until nobody listens any more.
pub(super) async fn watch(client: Client, kind: usize, heard: Heard) {
    let Some(watched) = KINDS.get(kind) else { return };
    let mut watch = Watch { client, watched, kind, heard, version: 0, looks: 0, was_there: false };
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = watch.follow().await;
        let wait = match ended {
            End::Deaf => return,
            End::Lost => {
                pause = FIRST_PAUSE;
                FIRST_PAUSE
            }
            End::Absent => LOOK_FOR_ABSENT,
            End::Broken(why) => {
                if watch.say(Said::Broken(why)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                pause.mul_f64(rand::random_range(0.5..1.0))
            }
        };
        tokio::select! {
            () = time::sleep(wait) => {}
            () = watch.heard.closed() => return,
        }
    }
}

/// Why the following ended.
enum End {
    /// Nobody listens.
    Deaf,
    /// What comes next is not known: the list is read again.
    Lost,
    /// The API does not know the kind.
    Absent,
    /// Something is wrong; says what.
    Broken(String),
}

struct Watch {
    client: Client,
    watched: &'static Watched,
    kind: usize,
    heard: Heard,
    /// Which of the kind's versions is asked for.
    version: usize,
    /// How often the kind was not found, one look after the other.
    looks: u32,
    was_there: bool,
}

impl Watch {
    // A list, and then whatever changes, as long as it can be followed.
    async fn follow(&mut self) -> End {
        let api = self.api();
        let mut from = match self.list(&api).await {
            Ok(from) => from,
            Err(end) => return end,
        };
        let mut failures = 0;
        loop {
            match self.changes(&api, &mut from).await {
                Ok(()) => failures = 0,
                // The list tells more surely than a thread that keeps breaking.
                Err(End::Broken(why)) if failures < 3 => {
                    failures += 1;
                    if self.say(Said::Broken(why)).await.is_none() {
                        return End::Deaf;
                    }
                    time::sleep(FIRST_PAUSE * failures).await;
                }
                Err(end) => return end,
            }
        }
    }

    fn api(&self) -> Api<DynamicObject> {
        let version = self.watched.versions.get(self.version).copied().unwrap_or("v1");
        let resource: ApiResource = self.watched.resource(version);
        Api::all_with(self.client.clone(), &resource)
    }

    // Answers from where on changes are to be followed.
    async fn list(&mut self, api: &Api<DynamicObject>) -> Result<String, End> {
        self.say(Said::Begun).await.ok_or(End::Deaf)?;
        let mut page = ListParams::default().limit(PAGE);
        page.label_selector = self.watched.labelled.map(str::to_owned);
        loop {
            let list = match time::timeout(LIST_LIMIT, api.list(&page)).await {
                Ok(Ok(list)) => list,
                Ok(Err(Error::Api(status))) if status.code == StatusCode::NOT_FOUND.as_u16() => {
                    return Err(self.look_elsewhere().await);
                }
                // A list that took too long to be read to its end begins anew.
                Ok(Err(Error::Api(status))) if is_lost(status.code) => return Err(End::Lost),
                Ok(Err(error)) => return Err(End::Broken(plain(&error))),
                Err(_) => {
                    return Err(End::Broken(format!("no list within {} s", LIST_LIMIT.as_secs())));
                }
            };
            self.looks = 0;
            self.was_there = true;
            let documents = list.items.into_iter().filter_map(|object| Document::new(self.watched, object));
            self.say(Said::Listed(documents.collect())).await.ok_or(End::Deaf)?;
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => {
                    self.say(Said::Whole).await.ok_or(End::Deaf)?;
                    return Ok(list.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    // In another version; and when it is in none, the kind is absent.
    async fn look_elsewhere(&mut self) -> End {
        self.version += 1;
        if self.version < self.watched.versions.len() {
            return End::Lost;
        }
        self.version = 0;
        if !self.watched.may_be_absent() {
            return End::Broken("the API does not know them".to_owned());
        }
        self.looks += 1;
        if self.was_there && self.looks < LOOKS_UNTIL_GONE {
            return End::Broken(
                "the API does not know them any more; if their CustomResourceDefinition was removed, so will be what it held"
                    .to_owned(),
            );
        }
        self.was_there = false;
        if self.say(Said::Absent).await.is_none() { End::Deaf } else { End::Absent }
    }

    async fn changes(&self, api: &Api<DynamicObject>, from: &mut String) -> Result<(), End> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector = self.watched.labelled.map(str::to_owned);
        let stream = match time::timeout(LIST_LIMIT, api.watch(&params, from)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(Error::Api(status)))
                if is_lost(status.code) || status.code == StatusCode::NOT_FOUND.as_u16() =>
            {
                return Err(End::Lost);
            }
            Ok(Err(error)) => return Err(End::Broken(plain(&error))),
            Err(_) => return Err(End::Broken(format!("no answer within {} s", LIST_LIMIT.as_secs()))),
        };
        self.say(Said::Mended).await.ok_or(End::Deaf)?;
        let mut stream = std::pin::pin!(stream.into_stream());
        loop {
            let next = tokio::select! {
                next = time::timeout(WATCH_LIMIT, stream.next()) => next,
                () = self.heard.closed() => return Err(End::Deaf),
            };
            let said = match next {
                // The API server ended it: the next one goes on where this one stopped.
                Ok(None) => return Ok(()),
                Err(_) => return Err(End::Broken("the watch says nothing any more".to_owned())),
                Ok(Some(Err(error))) => return Err(End::Broken(plain(&error))),
                Ok(Some(Ok(WatchEvent::Error(status)))) if is_lost(status.code) => return Err(End::Lost),
                Ok(Some(Ok(WatchEvent::Error(status)))) => return Err(End::Broken(status.message)),
                Ok(Some(Ok(WatchEvent::Bookmark(mark)))) => {
                    *from = mark.metadata.resource_version;
                    continue;
                }
                Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                    Document::new(self.watched, object).map(|document| {
                        from.clone_from(&document.resource_version);
                        Said::Applied(document)
                    })
                }
                Ok(Some(Ok(WatchEvent::Deleted(object)))) => {
                    if let Some(version) = &object.metadata.resource_version {
                        from.clone_from(version);
                    }
                    key(&object.metadata).map(Said::Deleted)
                }
            };
            if let Some(said) = said {
                self.say(said).await.ok_or(End::Deaf)?;
            }
        }
    }

    // `None`: nobody listens.
    async fn say(&self, said: Said) -> Option<()> {
        self.heard.send((self.kind, said)).await.ok()
    }
}

// 410: the API server does not remember that far back.
fn is_lost(code: u16) -> bool {
    code == StatusCode::GONE.as_u16()
}

// For an operator: the API server's own words where it has some.
fn plain(error: &Error) -> String {
    match error {
        Error::Api(status) if status.code == StatusCode::FORBIDDEN.as_u16() => {
            format!(
                "{} (what this service account may do is in the ClusterRole of `douane install`)",
                status.message
            )
        }
        Error::Api(status) => status.message.clone(),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
