//! One sidecar's stream: a full set first, then a delta for whatever changed of what it watches.
//!
//! It remembers what it has sent and compares: so that changes which come faster than the sidecar reads are joined, and
//! nothing is sent twice. Knows not who the sidecar is beyond its proven identity (`publish` saw to that).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use douane_proto::{
    features,
    id::WorkloadId,
    mesh::Workload,
    snapshot::{Found, Question},
    wire::{self, Delta, Hello, Report, WatchRequest, watch_request::Kind},
};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    discovery::{
        index::{Governed, Index, Law},
        learned::Learned,
        limits::Limits,
        trust::{Told, Trust},
    },
    holders::{Attending, Held, Holders},
    metrics::Metrics,
    traffic::{Telling, Traffic},
};

/// One stream watches at most so many addresses and hosts.
const MAX_WATCHED: usize = 10_000;
/// What is unknown is watched so long, so that its appearance is pushed.
const UNKNOWN_WATCHED: Duration = Duration::from_secs(30);
/// A sidecar may start a moment before its pod is known here.
const OWN_LIMIT: Duration = Duration::from_secs(10);
/// No stream is older than a certificate can be; a random part keeps them from ending together.
const MAX_AGE: Duration = Duration::from_secs(23 * 3600);
/// See [`MAX_AGE`].
const AGE_SPREAD_SECONDS: u64 = 3600;
/// A host name has at most 253 bytes, and a dot may follow it.
const MAX_HOST_BYTES: usize = 254;
/// A hash of a key has 20 to 64 bytes.
const MAX_KEY_ID_BYTES: usize = 64;
/// Longer chains are not ours.
const MAX_CHAIN: usize = 8;
/// Different complaints that one stream may bring into the log.
const MAX_COMPLAINTS: usize = 100;
/// A complaint is cut after so many characters.
const MAX_COMPLAINT: usize = 500;

/// What all streams share.
pub(crate) struct Shared {
    pub(crate) index: watch::Receiver<Arc<Index>>,
    pub(crate) learned: Learned,
    pub(crate) trust: Trust,
    pub(crate) holders: Holders,
    pub(crate) traffic: Traffic,
    pub(crate) epoch: u64,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
}

/// On its way to the sidecar. A channel has room for 32 however few may wait in it: boxed, that is no 18 KiB for each stream.
pub(crate) type Outgoing = Result<Box<Delta>, Status>;

/// One sidecar's stream.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    id: WorkloadId,
    requests: Streaming<WatchRequest>,
    deltas: mpsc::Sender<Outgoing>,
    sequence: u64,
    watched: HashMap<Question, Watched>,
    complaints: HashSet<String>,
    // Since the workload was found to be its own.
    attending: Option<Attending>,
    telling: Option<Telling>,
}

struct Watched {
    sent: Found,
    /// `None`: until it is forgotten.
    until: Option<Instant>,
}

// What the sidecar holds besides answers.
struct Sent {
    mesh: wire::MeshSettings,
    own: Arc<Workload>,
    policies: Arc<wire::PolicySet>,
    trust: Told,
}

// Why a stream ends although nothing is wrong.
enum End {
    Gone,
}

impl Stream {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: WorkloadId,
        requests: Streaming<WatchRequest>,
        deltas: mpsc::Sender<Outgoing>,
    ) -> Self {
        Self {
            shared,
            id,
            requests,
            deltas,
            sequence: 0,
            watched: HashMap::new(),
            complaints: HashSet::new(),
            attending: None,
            telling: None,
        }
    }

    /// Serves the stream until the sidecar leaves, or says why it must be opened anew.
    pub(crate) async fn run(mut self, hello: &Hello) -> Result<(), Status> {
        let _open = self.shared.metrics.stream();
        tracing::info!(identity = %self.id, workload = hello.workload, version = hello.version, "a sidecar has connected");
        let lacks: Vec<_> =
            features::ALL.iter().filter(|one| !hello.features.iter().any(|has| has == *one)).collect();
        if !lacks.is_empty() {
            tracing::warn!(identity = %self.id, ?lacks, "the sidecar does not understand every policy feature; what it does not understand it denies");
        }
        let ended = self.serve(hello).await;
        match ended {
            Ok(End::Gone) => {
                tracing::info!(identity = %self.id, workload = hello.workload, "a sidecar has left");
                Ok(())
            }
            Err(status) => {
                tracing::warn!(identity = %self.id, workload = hello.workload, code = ?status.code(), reason = status.message(), "a sidecar's stream was ended");
                Err(status)
            }
        }
    }

    async fn serve(&mut self, hello: &Hello) -> Result<End, Status> {
        let mut index = self.shared.index.clone();
        let mut trust = self.shared.trust.clone();
        let stop = self.shared.stop.clone();
        let age = MAX_AGE + Duration::from_secs(rand::random_range(0..AGE_SPREAD_SECONDS));
        let too_old = Instant::now() + age;
        let own = self.wait_for_own(&mut index, &hello.workload).await?;
        self.attending = Some(self.shared.holders.attend(&hello.workload));
        self.telling = Some(self.shared.traffic.attend(&hello.workload, &self.id, std::time::Instant::now()));
        let mut sent = self.greet(&index, &trust, own).await?;
        let mut asking = self.shared.traffic.asking();
        self.inquire().await?;
        let mut asked: Option<Question> = None;
        loop {
            let mut wait = self.next_expiry().unwrap_or(too_old).min(too_old);
            if let Some(question) = asked.take() {
                match self.shared.limits.take(&self.id, std::time::Instant::now()) {
                    Ok(()) => self.answer(question, &index, hello).await?,
                    // Not read further until there is a token again: the sidecar's own window then fills.
                    Err(until_token) => {
                        asked = Some(question);
                        wait = wait.min(Instant::now() + until_token);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Err(Status::unavailable("the control plane is stopping")),
                () = self.deltas.closed() => return Ok(End::Gone),
                () = time::sleep_until(wait) => {
                    if Instant::now() >= too_old {
                        return Err(Status::unavailable("the stream is old; open a new one"));
                    }
                    self.expire();
                }
                changed = index.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is stopping"))?;
                    self.push(&mut sent, &index, &trust, hello).await?;
                }
                changed = trust.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is stopping"))?;
                    self.push(&mut sent, &index, &trust, hello).await?;
                }
                () = asking.changed() => self.inquire().await?,
                message = self.requests.message(), if asked.is_none() => match message {
                    Ok(Some(WatchRequest { kind })) => asked = self.heed(kind, hello)?,
                    Ok(None) | Err(_) => return Ok(End::Gone),
                },
            }
        }
    }

    // The workload must exist and be of the account that the certificate proves. For both failures one answer, at the
    // same time: who is not its sidecar does not learn whether it exists.
    async fn wait_for_own(
        &self,
        index: &mut watch::Receiver<Arc<Index>>,
        workload: &str,
    ) -> Result<Governed, Status> {
        let deadline = Instant::now() + OWN_LIMIT;
        let mut hinted = false;
        loop {
            let now = Arc::clone(&index.borrow_and_update());
            if now.law == Law::Known
                && let Some(own) = now.workloads.get(workload)
                && own.workload.id == self.id
            {
                return Ok(own.clone());
            }
            if now.law == Law::Unknown && !hinted {
                tracing::error!(
                    workload,
                    "a sidecar waits: a law is unreadable as a whole, so that no policies are served"
                );
                hinted = true;
            }
            let changed = tokio::select! {
                () = self.shared.stop.cancelled() => return Err(Status::unavailable("the control plane is stopping")),
                changed = time::timeout_at(deadline, index.changed()) => changed,
            };
            match changed {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::unavailable("the control plane is stopping")),
                Err(_) if now.law == Law::Unknown => {
                    return Err(Status::unavailable("a law is unreadable; no policies are served"));
                }
                Err(_) => return Err(Status::permission_denied(NOT_YOURS)),
            }
        }
    }

    fn demand_own(&self, own: &Governed) -> Result<(), Status> {
        if own.workload.id == self.id {
            return Ok(());
        }
        Err(Status::permission_denied(NOT_YOURS))
    }

    async fn greet(
        &mut self,
        index: &watch::Receiver<Arc<Index>>,
        trust: &Trust,
        own: Governed,
    ) -> Result<Sent, Status> {
        let sent = Sent {
            mesh: (&index.borrow().mesh).into(),
            own: own.workload,
            policies: own.policies,
            trust: trust.now(),
        };
        let mut full = Delta {
            full: true,
            mesh: Some(sent.mesh.clone()),
            own: Some((&*sent.own).into()),
            policies: Some((*sent.policies).clone()),
            ..Delta::default()
        };
        sent.trust.since(None, &mut full);
        self.send(full).await?;
        Ok(sent)
    }

    // Sends what is other than what was sent, if anything is.
    async fn push(
        &mut self,
        sent: &mut Sent,
        index: &watch::Receiver<Arc<Index>>,
        trust: &Trust,
        hello: &Hello,
    ) -> Result<(), Status> {
        let now = Arc::clone(&index.borrow());
        let own = now.workloads.get(&hello.workload).ok_or_else(|| Status::permission_denied(NOT_YOURS))?;
        self.demand_own(own)?;

        let mut delta = Delta::default();
        let mesh = wire::MeshSettings::from(&now.mesh);
        if mesh != sent.mesh {
            delta.mesh = Some(mesh.clone());
            sent.mesh = mesh;
        }
        if own.workload != sent.own {
            delta.own = Some((&*own.workload).into());
            sent.own = Arc::clone(&own.workload);
        }
        if own.policies != sent.policies {
            delta.policies = Some((*own.policies).clone());
            sent.policies = Arc::clone(&own.policies);
        }
        let trust = trust.now();
        trust.since(Some(&sent.trust), &mut delta);
        sent.trust = trust;
        delta.answers = self.changed_answers(&now);
        if delta == Delta::default() {
            return Ok(());
        }
        self.send(delta).await
    }

    fn changed_answers(&mut self, index: &Index) -> Vec<wire::Answer> {
        let namespace = self.id.namespace();
        let mut answers = Vec::new();
        for (question, watched) in &mut self.watched {
            let found = index.answer(question, namespace);
            if found != watched.sent {
                answers.push(to_wire(question, &found));
                watched.until = expiry(&found);
                watched.sent = found;
            }
        }
        answers
    }

    fn heed(&mut self, kind: Option<Kind>, hello: &Hello) -> Result<Option<Question>, Status> {
        match kind {
            Some(Kind::Ask(question)) => read(question).map(Some),
            Some(Kind::Forget(question)) => {
                self.watched.remove(&read(question)?);
                Ok(None)
            }
            Some(Kind::Report(report)) => {
                self.note(report, hello);
                Ok(None)
            }
            Some(Kind::Figures(figures)) => {
                if let Some(telling) = &self.telling {
                    telling.takes(&figures, std::time::Instant::now());
                }
                Ok(None)
            }
            Some(Kind::Sightings(told)) => {
                if let Some(telling) = &self.telling {
                    telling.hears(&told);
                }
                Ok(None)
            }
            Some(Kind::Hello(_)) => Err(Status::invalid_argument("a second hello")),
            // From a newer sidecar: what it says we need not know.
            None => Ok(None),
        }
    }

    // Of what operators ask, what concerns this sidecar, if that is news to it.
    async fn inquire(&mut self) -> Result<(), Status> {
        match self.telling.as_mut().and_then(Telling::asks) {
            Some(inquiry) => self.send(Delta { inquiry: Some(inquiry), ..Delta::default() }).await,
            None => Ok(()),
        }
    }

    async fn answer(
        &mut self,
        question: Question,
        index: &watch::Receiver<Arc<Index>>,
        hello: &Hello,
    ) -> Result<(), Status> {
        self.expire();
        if self.watched.len() >= MAX_WATCHED && !self.watched.contains_key(&question) {
            tracing::warn!(identity = %self.id, workload = hello.workload, "a sidecar watches too much");
            return Err(Status::resource_exhausted("more than 10000 addresses and hosts are watched"));
        }
        let found = index.borrow().answer(&question, self.id.namespace());
        let delta = Delta { answers: vec![to_wire(&question, &found)], ..Delta::default() };
        self.watched.insert(question, Watched { until: expiry(&found), sent: found });
        self.shared.metrics.lookup();
        self.send(delta).await
    }

    fn note(&mut self, report: Report, hello: &Hello) {
        // Of its own ports only.
        let own = self.shared.index.borrow().workloads.get(&hello.workload).cloned();
        if let Some(own) = own.filter(|own| own.workload.id == self.id) {
            self.shared.learned.tell(&own.workload, &report.learned);
        }
        if let Some(attending) = &self.attending {
            attending.uses(held(&report));
        }
        for complaint in report.complaints {
            if self.complaints.len() >= MAX_COMPLAINTS {
                return;
            }
            let complaint: String = complaint.chars().take(MAX_COMPLAINT).collect();
            if self.complaints.insert(complaint.clone()) {
                self.shared.metrics.complaint();
                tracing::warn!(identity = %self.id, workload = hello.workload, complaint, "a sidecar complains");
            }
        }
    }

    async fn send(&mut self, delta: Delta) -> Result<(), Status> {
        self.sequence += 1;
        let delta = Delta { epoch: self.shared.epoch, sequence: self.sequence, ..delta };
        // Fails only when the sidecar has gone; then the loop ends by itself.
        if self.deltas.send(Ok(Box::new(delta))).await.is_ok() {
            self.shared.metrics.delta();
        }
        Ok(())
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.watched.values().filter_map(|watched| watched.until).min()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        self.watched.retain(|_, watched| watched.until.is_none_or(|until| until > now));
    }
}

const NOT_YOURS: &str = "there is no such workload of your service account";

// A sidecar that does not say which bundle it uses is one that knows none.
fn held(report: &Report) -> Held {
    let is_key_id = |id: &&Vec<u8>| (1..=MAX_KEY_ID_BYTES).contains(&id.len());
    Held {
        bundle: (report.bundle_epoch, report.bundle_sequence),
        until: report.certificate_expires,
        authorities: report
            .certificate_authorities
            .iter()
            .filter(is_key_id)
            .take(MAX_CHAIN)
            .cloned()
            .collect(),
    }
}

fn expiry(found: &Found) -> Option<Instant> {
    matches!(found, Found::Unknown).then(|| Instant::now() + UNKNOWN_WATCHED)
}

fn read(question: wire::Question) -> Result<Question, Status> {
    let question: Question =
        question.try_into().map_err(|_| Status::invalid_argument("the question makes no sense"))?;
    match &question {
        Question::Host(host) if host.is_empty() || host.len() > MAX_HOST_BYTES => {
            Err(Status::invalid_argument("the question makes no sense"))
        }
        _ => Ok(question),
    }
}

fn to_wire(question: &Question, found: &Found) -> wire::Answer {
    wire::Answer { question: Some(question.into()), found: Some(found.into()) }
}
