//! What replicas share, in a Kubernetes API: the authority's state in a Secret, whose turn it is in a Lease, and what each
//! replica says of itself in a `ConfigMap`. `douane install` makes all three, empty, so that we need no right to create any.
//!
//! Each change names the version that it changes (`resourceVersion`): of two, the API server takes one. Whoever takes the Lease
//! writes its name on the Secret before it does anything else, so that whoever had it before finds another version or another
//! name there, however late it wakes up. The Secret is read anew each second and not watched: a watch that hangs says nothing,
//! and whoever signs must know that what it signs by is fresh. Knows not what lies in them (`keep`, `horizon`, `roll`), nor whose
//! a place is (`places`).

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time};

use super::{
    lease::{Found, LEASE, Turn, Watched},
    places::{self, Past, Place, Said, Silence, Topic, Whose, Words},
};
use crate::{
    config::{Kubernetes, OWN_NAMESPACE},
    kubernetes::{self, Client, ClientError},
    state::{Item, MOST_REPLICAS, Shelf},
};

/// The Secret's name, and the Lease's.
const AUTHORITY: &str = "douane-authority";
/// The `ConfigMap`'s.
const REPLICAS: &str = "douane-replicas";
/// The Secret's key.
const STATE: &str = "authority";
/// Who may change the Secret.
const LEADER: &str = "douane.io/leader";
/// Each question; whoever signs waits for one now and then.
const LIMIT: Duration = Duration::from_secs(3);
/// Whoever leads hears of others' holders within a few seconds: often enough for a step that takes minutes.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// Whoever leads says that it is there.
const SHOW_EVERY: Duration = Duration::from_secs(30);
/// What others say is read again after this.
const HEAR_EVERY: Duration = Duration::from_secs(1);
/// Replicas that start at once take places from each other, and all that run write into one map.
const MOST_TRIES: usize = 8;

/// The shared state of the replicas in one cluster.
pub struct ClusterShelf {
    client: Client,
    me: String,
    number: u8,
    // What we say is said by one at a time.
    telling: Mutex<()>,
    memory: Mutex<Memory>,
    // Taken when it ends: questions are asked on a thread of their own, whoever waits for the answer.
    runtime: Option<Runtime>,
}

/// Why there is no shelf.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// There is no way to the API.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It does not give us a place; it may later.
    #[error("take a place among the replicas")]
    Place(#[source] io::Error),
}

#[derive(Default)]
struct Memory {
    watched: Watched,
    secret: Version,
    map: Said,
    // Ours, as it lies there.
    horizon: Option<String>,
    heard: Option<Instant>,
    told: Option<Instant>,
    left: bool,
}

// Of the Secret, as it was read last.
#[derive(Debug, Clone, Default)]
struct Version {
    resource: String,
    leader: String,
}

impl ClusterShelf {
    /// Takes a place among the replicas; waits for the API server, so that it must not be called from a task. `silence` is the
    /// same at each try.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn open(access: &Kubernetes, silence: &mut Silence) -> Result<Self, ShelfError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(ShelfError::Place)?;
        let client = runtime.block_on(kubernetes::client(access))?;
        // A container that is started anew in its pod is who it was: the one before it has ended.
        let me = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
        let me = me.unwrap_or_else(|| crate::hex::encode(&rand::random::<[u8; 8]>()));
        let (telling, memory) = (Mutex::default(), Mutex::default());
        let mut shelf = Self { client, me, number: 0, telling, memory, runtime: Some(runtime) };
        shelf.number = shelf.take_place(silence).map_err(ShelfError::Place)?;
        Ok(shelf)
    }

    fn take_place(&self, silence: &mut Silence) -> io::Result<u8> {
        for _ in 0..MOST_TRIES {
            let (version, said) = self.hear()?;
            let number = silence.place_for(&self.me, &said, Instant::now()).ok_or_else(|| {
                io::Error::other(format!(
                    "{MOST_REPLICAS} replicas have a place, and there is no other; one that says nothing for a minute or \
                     two makes room"
                ))
            })?;
            let horizon = said.get(&Topic::Horizon.of(number)).cloned();
            let place = Place { me: self.me.clone(), number, horizon };
            // Where there is no state, nothing was signed by it.
            let past = if places::is_blank(&said) && self.read(Item::Authority)?.is_none() {
                Past::Nothing
            } else {
                Past::Unknown
            };
            if self.write_map(&version, &place.claim(&said, past, unix()))?.is_some() {
                self.memory().horizon = place.horizon;
                return Ok(number);
            }
        }
        Err(io::Error::other("others took each place before us; it is tried again"))
    }

    fn place(&self) -> Place {
        Place { me: self.me.clone(), number: self.number, horizon: self.memory().horizon.clone() }
    }

    // What all say, and of which version that is; remembered.
    fn hear(&self) -> io::Result<(String, Said)> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let map = self.wait(async move { maps.get(REPLICAS).await })?;
        let (version, said) =
            (map.metadata.resource_version.unwrap_or_default(), map.data.unwrap_or_default());
        let mut memory = self.memory();
        memory.map.clone_from(&said);
        memory.heard = Some(Instant::now());
        Ok((version, said))
    }

    // `None`: somebody else has changed it meanwhile.
    fn write_map(&self, version: &str, words: &Words) -> io::Result<Option<()>> {
        let patch = json!({"metadata": {"resourceVersion": version}, "data": words});
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let written = self.wait(async move {
            unless_changed(maps.patch(REPLICAS, &PatchParams::default(), &Patch::Merge(patch)).await)
        })?;
        Ok(written.map(|map| self.memory().map = map.data.unwrap_or_default()))
    }

    // Says something of ourselves, and that we are there: in our own place, which is taken again where it was lost.
    fn tell(&self, news: Option<(Topic, &[u8])>) -> io::Result<()> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(io::Error::other);
        let news = news.map(|(topic, bytes)| Ok::<_, io::Error>((topic, text(bytes)?))).transpose()?;
        let _one = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MOST_TRIES {
            self.refuse_left()?;
            let (version, said) = self.hear()?;
            let place = self.place();
            let words = place.words(&said, news, unix()).map_err(io::Error::other)?;
            if self.write_map(&version, &words)?.is_none() {
                continue;
            }
            if place.whose(&said) == Whose::Nobodys {
                tracing::warn!(
                    number = self.number,
                    "our place among the replicas was lost, and is taken again; what was signed by others may be valid for a day"
                );
            }
            let mut memory = self.memory();
            if let Some((Topic::Horizon, horizon)) = news {
                memory.horizon = Some(horizon.to_owned());
            }
            memory.told = Some(Instant::now());
            return Ok(());
        }
        Err(io::Error::other("others change the ConfigMap all the time; it is tried again"))
    }

    fn refuse_left(&self) -> io::Result<()> {
        if self.memory().left { Err(io::Error::other("we have given our place back")) } else { Ok(()) }
    }

    fn give_back(&self) -> io::Result<()> {
        let _one = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MOST_TRIES {
            let (version, said) = self.hear()?;
            let place = self.place();
            if place.whose(&said) != Whose::Ours || self.write_map(&version, &place.farewell())?.is_some() {
                return Ok(());
            }
        }
        Err(io::Error::other("others change the ConfigMap all the time"))
    }

    fn secret(&self) -> io::Result<Secret> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let secret = self.wait(async move { secrets.get(AUTHORITY).await })?;
        self.remember(&secret);
        Ok(secret)
    }

    // `None`: somebody else has changed it meanwhile.
    fn write_secret(&self, patch: Value) -> io::Result<Option<()>> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let written = self.wait(async move {
            unless_changed(secrets.patch(AUTHORITY, &PatchParams::default(), &Patch::Merge(patch)).await)
        })?;
        Ok(written.map(|secret| self.remember(&secret)))
    }

    fn remember(&self, secret: &Secret) {
        let leader = secret.metadata.annotations.as_ref().and_then(|all| all.get(LEADER));
        self.memory().secret = Version {
            resource: secret.metadata.resource_version.clone().unwrap_or_default(),
            leader: leader.cloned().unwrap_or_default(),
        };
    }

    // From now on whoever led before cannot write.
    fn fence(&self) -> io::Result<()> {
        for _ in 0..MOST_TRIES {
            let secret = self.secret()?;
            let version = secret.metadata.resource_version.unwrap_or_default();
            let mark = json!({"metadata": {"resourceVersion": version, "annotations": {LEADER: self.me}}});
            if self.write_secret(mark)?.is_some() {
                return Ok(());
            }
        }
        Err(io::Error::other("the Secret is changed all the time by somebody else"))
    }

    // Writes the lease; `None`: somebody else did meanwhile.
    fn claim(&self, found: &Lease, turn: Turn) -> io::Result<Option<()>> {
        let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let lives = LEASE.as_secs();
        let spec = match turn {
            Turn::Take => {
                let before = found.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
                json!({
                    "holderIdentity": self.me,
                    "leaseDurationSeconds": lives,
                    "renewTime": now,
                    "acquireTime": now,
                    "leaseTransitions": before.saturating_add(1),
                })
            }
            _ => json!({"holderIdentity": self.me, "leaseDurationSeconds": lives, "renewTime": now}),
        };
        self.write_lease(found, &spec)
    }

    fn write_lease(&self, found: &Lease, spec: &Value) -> io::Result<Option<()>> {
        let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "spec": spec});
        let leases = Api::<Lease>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let written = self.wait(async move {
            unless_changed(leases.patch(AUTHORITY, &PatchParams::default(), &Patch::Merge(patch)).await)
        })?;
        Ok(written.map(drop))
    }

    fn lease(&self) -> io::Result<(Lease, Found)> {
        let leases = Api::<Lease>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let lease = self.wait(async move { leases.get(AUTHORITY).await })?;
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        Ok((lease, Found { holder: holder.unwrap_or_default(), version }))
    }

    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, kube::Error>> + Send + 'static,
    ) -> io::Result<T> {
        let Some(runtime) = &self.runtime else { return Err(io::Error::other("we have ended")) };
        let (done, answer) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Who does not wait any more has ended.
            let _ = done.send(time::timeout(LIMIT, work).await);
        });
        match answer.recv() {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(said(&error)),
            Ok(Err(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(_) => Err(io::Error::other("the question could not be asked")),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for ClusterShelf {
    fn replica(&self) -> u8 {
        self.number
    }

    fn name(&self, item: Item) -> PathBuf {
        match item {
            Item::Authority => format!("secret/{OWN_NAMESPACE}/{AUTHORITY}").into(),
            Item::Before | Item::Horizon(_) | Item::Roll(_) => {
                format!("configmap/{OWN_NAMESPACE}/{REPLICAS}").into()
            }
        }
    }

    fn read(&self, item: Item) -> io::Result<Option<Vec<u8>>> {
        let key = match item {
            Item::Authority => {
                let found = self.secret()?.data.unwrap_or_default().remove(STATE);
                return Ok(found.map(|bytes| bytes.0).filter(|bytes| !bytes.is_empty()));
            }
            Item::Before => places::BEFORE.to_owned(),
            Item::Horizon(number) => Topic::Horizon.of(number),
            Item::Roll(number) => Topic::Roll.of(number),
        };
        Ok(self.memory().map.get(&key).map(|text| text.clone().into_bytes()))
    }

    fn write(&self, item: Item, bytes: &[u8]) -> io::Result<()> {
        match item {
            Item::Authority => {
                let Version { resource, leader } = self.memory().secret.clone();
                if leader != self.me {
                    return Err(io::Error::other("another replica leads by now"));
                }
                let data = json!({ STATE: k8s_openapi::ByteString(bytes.to_vec()) });
                let patch = json!({"metadata": {"resourceVersion": resource}, "data": data});
                self.write_secret(patch)?.ok_or_else(|| {
                    io::Error::other("somebody else has changed it meanwhile; it is read again")
                })
            }
            Item::Horizon(number) if number == self.number => self.tell(Some((Topic::Horizon, bytes))),
            Item::Roll(number) if number == self.number => {
                let told = self.memory().told;
                if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
                    return Ok(());
                }
                self.tell(Some((Topic::Roll, bytes)))
            }
            Item::Before | Item::Horizon(_) | Item::Roll(_) => {
                Err(io::Error::other("it is another replica's"))
            }
        }
    }

    fn lead(&self) -> io::Result<bool> {
        self.refuse_left()?;
        let now = Instant::now();
        let (lease, found) = self.lease()?;
        let turn = self.memory().watched.turn(&found, &self.me, now);
        match turn {
            Turn::Follow => return Ok(false),
            Turn::Keep => {}
            Turn::Renew => {
                // Whoever else has touched it has not taken it: it was ours a moment ago.
                if self.claim(&lease, turn)?.is_some() {
                    self.memory().watched.renewed(now);
                }
            }
            Turn::Take => {
                if self.claim(&lease, turn)?.is_none() {
                    return Ok(false);
                }
                self.fence()?;
                self.memory().watched.renewed(now);
            }
        }
        let (heard, told) = {
            let memory = self.memory();
            (memory.heard, memory.told)
        };
        if told.is_none_or(|told| told.elapsed() >= SHOW_EVERY) {
            self.tell(None)?;
        } else if heard.is_none_or(|heard| heard.elapsed() >= HEAR_EVERY) {
            let (_, said) = self.hear()?;
            if self.place().whose(&said) != Whose::Ours {
                self.tell(None)?;
            }
        }
        Ok(true)
    }

    fn leave(&self) {
        // What is still under way takes nothing again.
        self.memory().left = true;
        let left = self.lease().and_then(|(lease, found)| {
            if found.holder == self.me {
                self.write_lease(&lease, &json!({"holderIdentity": ""}))
            } else {
                Ok(None)
            }
        });
        // Who hears nothing of the one will hear nothing of the other.
        if let Err(error) = left.and_then(|_| self.give_back()) {
            tracing::warn!(
                %error,
                "the lease or our place could not be given back: others take them when they have run out"
            );
        }
    }
}

impl fmt::Debug for ClusterShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterShelf")
            .field("me", &self.me)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Drop for ClusterShelf {
    fn drop(&mut self) {
        // It must not wait: it may be dropped by a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn unless_changed<T>(written: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match written {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn said(error: &kube::Error) -> io::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            io::Error::other(format!("{}; apply what `douane install` prints", status.message))
        }
        kube::Error::Api(status) => io::Error::other(format!("{} (code {})", status.message, status.code)),
        other => io::Error::other(other.to_string()),
    }
}

fn unix() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
