//! What replicas share, in a Kubernetes API: the authority's state in a Secret, whose turn it is in a Lease, and what each
//! replica says of itself in a `ConfigMap`. `douane install` makes all three, empty, so that we need no right to create any.
//!
//! Each change names the version that it changes (`resourceVersion`): of two, the API server takes one. Whoever takes the Lease
//! writes its name on the Secret before it does anything else, so that whoever had it before finds another version or another
//! name there, however late it wakes up. The Secret is read anew each second and not watched: a watch that hangs says nothing,
//! and whoever signs must know that what it signs by is fresh. Knows not what lies in them (`keep`, `horizon`, `roll`).

use std::{
    collections::BTreeMap,
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

use super::lease::{Found, LEASE, Turn, Watched};
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
/// A place whose owner has said nothing for so long is free, seconds: clocks of nodes may differ by a minute.
const PLACE_FREE_AFTER: u64 = 180;
/// Replicas that start at once take places from each other.
const MOST_TRIES: usize = 8;

/// The shared state of the replicas in one cluster.
pub struct ClusterShelf {
    client: Client,
    me: String,
    number: u8,
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
    map: BTreeMap<String, String>,
    heard: Option<Instant>,
    told: Option<Instant>,
}

// Of the Secret, as it was read last.
#[derive(Debug, Clone, Default)]
struct Version {
    resource: String,
    leader: String,
}

impl ClusterShelf {
    /// Takes a place among the replicas; waits for the API server, so that it must not be called from a task.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn open(access: &Kubernetes) -> Result<Self, ShelfError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(ShelfError::Place)?;
        let client = runtime.block_on(kubernetes::client(access))?;
        // A container that is started anew in its pod is who it was: the one before it has ended.
        let me = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
        let me = me.unwrap_or_else(|| crate::hex::encode(&rand::random::<[u8; 8]>()));
        let mut shelf = Self { client, me, number: 0, memory: Mutex::default(), runtime: Some(runtime) };
        shelf.number = shelf.take_place().map_err(ShelfError::Place)?;
        Ok(shelf)
    }

    fn take_place(&self) -> io::Result<u8> {
        for _ in 0..MOST_TRIES {
            let map = self.hear()?;
            let version = map.metadata.resource_version.unwrap_or_default();
            let said = map.data.unwrap_or_default();
            let number = free_place(&said, &self.me, unix()).ok_or_else(|| {
                io::Error::other(format!("{MOST_REPLICAS} replicas run: there is no place for another"))
            })?;
            let claim = json!({
                "metadata": {"resourceVersion": version},
                "data": {
                    format!("holder-{number}"): self.me,
                    format!("seen-{number}"): unix().to_string(),
                    format!("roll-{number}"): null,
                },
            });
            if self.write_map(claim)?.is_some() {
                return Ok(number);
            }
        }
        Err(io::Error::other("others took each place before us; it is tried again"))
    }

    // What all say; remembered.
    fn hear(&self) -> io::Result<ConfigMap> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let map = self.wait(async move { maps.get(REPLICAS).await })?;
        let mut memory = self.memory();
        memory.map = map.data.clone().unwrap_or_default();
        memory.heard = Some(Instant::now());
        Ok(map)
    }

    // `None`: somebody else has changed it meanwhile.
    fn write_map(&self, patch: Value) -> io::Result<Option<BTreeMap<String, String>>> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), OWN_NAMESPACE);
        let written = self.wait(async move {
            unless_changed(maps.patch(REPLICAS, &PatchParams::default(), &Patch::Merge(patch)).await)
        })?;
        Ok(written.map(|map| {
            let data = map.data.unwrap_or_default();
            self.memory().map.clone_from(&data);
            data
        }))
    }

    // Says something of ourselves, and that we are there.
    fn tell(&self, key: Option<(&str, &[u8])>) -> io::Result<()> {
        let mut data = BTreeMap::from([(format!("seen-{}", self.number), unix().to_string())]);
        if let Some((key, bytes)) = key {
            let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
            data.insert(format!("{key}-{}", self.number), text.to_owned());
        }
        let said = self.write_map(json!({ "data": data }))?.unwrap_or_default();
        if said.get(&format!("holder-{}", self.number)).is_none_or(|holder| *holder != self.me) {
            return Err(io::Error::other(
                "our place among the replicas was given to another; start this one again",
            ));
        }
        self.memory().told = Some(Instant::now());
        Ok(())
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
            Item::Horizon(_) | Item::Roll(_) => format!("configmap/{OWN_NAMESPACE}/{REPLICAS}").into(),
        }
    }

    fn read(&self, item: Item) -> io::Result<Option<Vec<u8>>> {
        let key = match item {
            Item::Authority => {
                let found = self.secret()?.data.unwrap_or_default().remove(STATE);
                return Ok(found.map(|bytes| bytes.0).filter(|bytes| !bytes.is_empty()));
            }
            Item::Horizon(number) => format!("horizon-{number}"),
            Item::Roll(number) => format!("roll-{number}"),
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
            Item::Horizon(number) if number == self.number => self.tell(Some(("horizon", bytes))),
            Item::Roll(number) if number == self.number => {
                let told = self.memory().told;
                if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
                    return Ok(());
                }
                self.tell(Some(("roll", bytes)))
            }
            Item::Horizon(_) | Item::Roll(_) => Err(io::Error::other("it is another replica's")),
        }
    }

    fn lead(&self) -> io::Result<bool> {
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
            self.hear()?;
        }
        Ok(true)
    }

    fn leave(&self) {
        let left = self.lease().and_then(|(lease, found)| {
            if found.holder == self.me {
                self.write_lease(&lease, &json!({"holderIdentity": ""}))
            } else {
                Ok(None)
            }
        });
        if let Err(error) = left {
            tracing::warn!(%error, "the lease could not be given back: another replica leads when it has run out");
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

// Our own from before; else one that nobody had, so that nothing that is still valid is taken over without need; else the one
// whose owner has been silent for the longest.
fn free_place(said: &BTreeMap<String, String>, me: &str, now: u64) -> Option<u8> {
    let of = |number: u8, what: &str| said.get(&format!("{what}-{number}")).map(String::as_str);
    let own = (1..=MOST_REPLICAS).find(|number| of(*number, "holder") == Some(me));
    let unused = || (1..=MOST_REPLICAS).find(|number| of(*number, "holder").is_none());
    let silent = || {
        let seen = |number: &u8| of(*number, "seen").and_then(|at| at.parse::<u64>().ok()).unwrap_or(0);
        let oldest = (1..=MOST_REPLICAS).min_by_key(seen);
        oldest.filter(|number| now.saturating_sub(seen(number)) >= PLACE_FREE_AFTER)
    };
    own.or_else(unused).or_else(silent)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[(&str, &str)]) -> BTreeMap<String, String> {
        lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn g11_a_replica_takes_its_own_place_then_an_unused_one_then_that_of_who_is_long_gone() {
        let two = said(&[("holder-1", "a"), ("seen-1", "1000"), ("holder-2", "b"), ("seen-2", "1000")]);
        assert_eq!(free_place(&two, "b", 1001), Some(2));
        assert_eq!(free_place(&two, "c", 9999), Some(3));
        assert_eq!(free_place(&BTreeMap::new(), "c", 1000), Some(1));

        let mut full = BTreeMap::new();
        for number in 1..=MOST_REPLICAS {
            full.insert(format!("holder-{number}"), format!("pod-{number}"));
            full.insert(format!("seen-{number}"), (1000 + u64::from(number)).to_string());
        }
        assert_eq!(free_place(&full, "c", 1001 + PLACE_FREE_AFTER), Some(1));
        assert_eq!(free_place(&full, "c", 1000 + PLACE_FREE_AFTER), None, "all of them run");
        full.remove("seen-5");
        assert_eq!(free_place(&full, "c", 1000 + PLACE_FREE_AFTER), Some(5), "it never said anything");
    }
}
