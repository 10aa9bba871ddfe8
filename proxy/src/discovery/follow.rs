//! The stream itself: hello, questions and reports go up, deltas come down and become the next `Snapshot`. When it
//! breaks, the last good state stays and the stream is opened anew; when a delta cannot be applied, a full set is
//! asked for. The one writer of the live `Snapshot`.

use std::{collections::VecDeque, convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use douane_proto::{
    features,
    mtls::MtlsModes,
    policy::PolicySet,
    snapshot::{ApplyError, Found, Question, Snapshot},
    svid::{self, Identity, SvidError, TrustBundle},
    wire::{self, discovery_client::DiscoveryClient, watch_request::Kind},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Mesh, Questions, witness::Witness};
use crate::{
    backoff::Backoff,
    tls::channel::{Authentication, ChannelError, ControlPlane},
};

const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(10) };
/// A stream that lived this long was a good one: the next failure counts as the first.
const GOOD_LIFE: Duration = Duration::from_secs(30);
/// From the hello to the first full set.
const FIRST_LIMIT: Duration = Duration::from_secs(10);
/// Messages on their way up; more wait in our own queue.
const OUTGOING: usize = 64;
/// Messages in our own queue: every question that may be watched, and as many others. What does not fit is not said: a
/// question is asked again when it is still wanted, and a report is as good as the next one.
const MOST_WAITING: usize = 20_000;
/// A full set of a pod that talks to thousands of workloads; more is refused unread.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// How often we look for what may be forgotten, and tell what was counted.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Follows the control plane for ever.
#[derive(Debug)]
pub struct Follower {
    control_plane: ControlPlane,
    // `namespace/pod`.
    workload: String,
    identity: watch::Receiver<Arc<Identity>>,
    bundles: watch::Sender<Option<Arc<TrustBundle>>>,
    questions: Rc<Questions>,
    witness: Rc<dyn Witness>,
    held: Option<Published>,
    first: Option<oneshot::Sender<Mesh>>,
    // The control plane must begin with a full set, because what we hold does not fit.
    full_wanted: bool,
    connected: watch::Sender<bool>,
}

#[derive(Debug)]
struct Published {
    snapshot: watch::Sender<Arc<Snapshot>>,
    policies: watch::Sender<Arc<PolicySet>>,
    modes: watch::Sender<MtlsModes>,
}

// What waits to be said to a control plane that reads slowly: it lets us ask 50 times a second, and an application may
// want far more.
#[derive(Debug, Default)]
struct Waiting(VecDeque<wire::WatchRequest>);

impl Waiting {
    fn extend(&mut self, messages: impl IntoIterator<Item = wire::WatchRequest>) {
        let room = MOST_WAITING.saturating_sub(self.0.len());
        self.0.extend(messages.into_iter().take(room));
    }
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended the stream: {} ({:?})", .0.message(), .0.code())]
    Status(Box<tonic::Status>),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("no full set came in {} s", FIRST_LIMIT.as_secs())]
    Silent,
    #[error("a delta cannot be applied: {}", with_cause(.0))]
    Apply(#[from] ApplyError),
    #[error("the pushed trust bundle is refused: {0}")]
    Bundle(#[from] SvidError),
}

impl Follower {
    /// A follower for the pod `workload` (`namespace/pod`), and where the first state will come from. Trust bundles go
    /// to `bundles`: the identity's writer takes them over. What `witness` has seen is told on the way.
    #[must_use]
    pub fn new(
        control_plane: ControlPlane,
        workload: String,
        identity: watch::Receiver<Arc<Identity>>,
        bundles: watch::Sender<Option<Arc<TrustBundle>>>,
        witness: Rc<dyn Witness>,
    ) -> (Self, oneshot::Receiver<Mesh>) {
        let (first, mesh) = oneshot::channel();
        let follower = Self {
            control_plane,
            workload,
            identity,
            bundles,
            questions: Rc::default(),
            witness,
            held: None,
            first: Some(first),
            full_wanted: false,
            connected: watch::Sender::default(),
        };
        (follower, mesh)
    }

    /// Whether the control plane is heard: its stream is open, and its first full set was applied.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Connects, follows, and connects again.
    pub async fn run(mut self) -> Infallible {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(error) = self.follow().await;
            self.connected.send_replace(false);
            if began.elapsed() >= GOOD_LIFE {
                failures = 0;
            }
            failures += 1;
            if let FollowError::Apply(_) = error {
                self.full_wanted = true;
            }
            let wait = RETRY.wait(failures, rand::random());
            let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, retry_ms, "discovery is interrupted, the last good state stays");
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow(&mut self) -> Result<Infallible, FollowError> {
        let identity = Arc::clone(&self.identity.borrow_and_update());
        let channel = self.control_plane.connect(Some(&identity), Authentication::Mutual).await?;
        let (up, requests) = mpsc::channel(OUTGOING);
        let _ = up.send(self.hello()).await;
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let opened = tokio::time::timeout(FIRST_LIMIT, client.watch(ReceiverStream::new(requests)));
        let down = opened.await.map_err(|_| FollowError::Silent)??.into_inner();
        self.exchange(&up, down).await
    }

    async fn exchange(
        &mut self,
        up: &mpsc::Sender<wire::WatchRequest>,
        mut down: Streaming<wire::Delta>,
    ) -> Result<Infallible, FollowError> {
        let questions = Rc::clone(&self.questions);
        let first_limit = tokio::time::sleep(FIRST_LIMIT);
        tokio::pin!(first_limit);
        let mut synced = false;
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outgoing = Waiting::default();
        questions.learned.borrow_mut().forget_telling();
        self.witness.begin();
        let sighted = self.witness.news();
        outgoing.extend(questions.watched.borrow_mut().all().iter().map(ask));
        loop {
            tokio::select! {
                delta = down.message() => {
                    self.take(delta?.ok_or(FollowError::Ended)?)?;
                    synced = true;
                    self.connected.send_if_modified(|connected| !std::mem::replace(connected, true));
                    outgoing.extend(self.report());
                }
                room = up.reserve(), if !outgoing.0.is_empty() => {
                    let room = room.map_err(|_| FollowError::Ended)?;
                    if let Some(message) = outgoing.0.pop_front() {
                        room.send(message);
                    }
                }
                () = questions.fresh.notified() => {
                    outgoing.extend(questions.watched.borrow_mut().take_fresh().iter().map(ask));
                    outgoing.extend(self.lessons());
                }
                Ok(()) = self.identity.changed() => outgoing.extend(self.report()),
                // What has no room waits with the witness, which keeps a bounded number.
                () = sighted.notified(), if outgoing.0.len() < OUTGOING => {
                    outgoing.extend(self.witness.sightings().into_iter().map(Kind::Sightings).map(message));
                }
                _ = sweep.tick() => {
                    outgoing.extend(self.forget());
                    // Counters only grow: what is not told now is told the next time.
                    if outgoing.0.len() < OUTGOING {
                        outgoing.extend(self.witness.figures().into_iter().map(Kind::Figures).map(message));
                    }
                }
                () = &mut first_limit, if !synced => return Err(FollowError::Silent),
            }
        }
    }

    fn take(&mut self, mut delta: wire::Delta) -> Result<(), FollowError> {
        let bundle = delta.bundle.take().map(TrustBundle::try_from).transpose()?;
        if let Some(inquiry) = delta.inquiry.take() {
            self.witness.inquire(inquiry);
        }
        let full = delta.full;
        let answered: Vec<Question> =
            delta.answers.iter().filter_map(|answer| answer.question.clone()?.try_into().ok()).collect();
        let held = self.held.as_ref().map(|held| Arc::clone(&held.snapshot.borrow()));
        let usable = held.as_deref().filter(|_| !self.full_wanted);
        let mut next = Snapshot::apply(usable, delta)?;
        self.full_wanted = false;
        self.settle_answers(&mut next, &answered, held.filter(|_| full).as_deref());
        if let Some(bundle) = bundle {
            self.bundles.send_replace(Some(Arc::new(bundle)));
        }
        self.publish(next);
        Ok(())
    }

    // A full set comes before the answers to what is asked again on a new stream: until those come, the last good
    // answers stay, or each reconnection would stop traffic. Answers that nobody wants any more go.
    fn settle_answers(&self, next: &mut Snapshot, answered: &[Question], before: Option<&Snapshot>) {
        let mut watched = self.questions.watched.borrow_mut();
        let now = Instant::now();
        for question in answered {
            let known = !matches!(next.answers.get(question), None | Some(Found::Unknown));
            watched.answered(question, known, now);
        }
        for (question, found) in before.map(|before| &before.answers).into_iter().flatten() {
            next.answers.entry(question.clone()).or_insert_with(|| found.clone());
        }
        next.answers.retain(|question, _| watched.contains(question));
    }

    fn publish(&mut self, next: Snapshot) {
        let complaints = next.policies.complaints();
        let changed =
            self.held.as_ref().is_none_or(|held| !Arc::ptr_eq(&held.policies.borrow(), &next.policies));
        if changed {
            tracing::info!(
                epoch = next.epoch,
                sequence = next.sequence,
                complaints = complaints.join("; "),
                "new policies"
            );
        }
        let Some(held) = &self.held else {
            return self.publish_first(next);
        };
        if changed {
            held.policies.send_replace(Arc::clone(&next.policies));
        }
        held.modes.send_if_modified(|modes| {
            let changed = *modes != next.own.mtls;
            if changed {
                modes.clone_from(&next.own.mtls);
            }
            changed
        });
        held.snapshot.send_replace(Arc::new(next));
    }

    fn publish_first(&mut self, first: Snapshot) {
        let (policies, policies_seen) = watch::channel(Arc::clone(&first.policies));
        let (modes, modes_seen) = watch::channel(first.own.mtls.clone());
        let (snapshot, snapshot_seen) = watch::channel(Arc::new(first));
        self.held = Some(Published { snapshot, policies, modes });
        let mesh = Mesh {
            snapshot: snapshot_seen,
            policies: policies_seen,
            modes: modes_seen,
            questions: Rc::clone(&self.questions),
        };
        if let Some(first) = self.first.take() {
            // Nobody waits any more when the sidecar ends while it starts.
            let _ = first.send(mesh);
        }
    }

    fn forget(&self) -> Vec<wire::WatchRequest> {
        let forgotten = self.questions.watched.borrow_mut().sweep(Instant::now());
        if let (false, Some(held)) = (forgotten.is_empty(), &self.held) {
            held.snapshot.send_modify(|snapshot| {
                let mut next = (**snapshot).clone();
                next.answers.retain(|question, _| !forgotten.contains(question));
                *snapshot = Arc::new(next);
            });
        }
        forgotten.iter().map(|question| message(Kind::Forget(question.into()))).collect()
    }

    fn hello(&self) -> wire::WatchRequest {
        let held = self.held.as_ref().filter(|_| !self.full_wanted).map(|held| held.snapshot.borrow());
        message(Kind::Hello(wire::Hello {
            workload: self.workload.clone(),
            features: features::ALL.iter().map(|&feature| feature.to_owned()).collect(),
            epoch: held.as_ref().map_or(0, |snapshot| snapshot.epoch),
            sequence: held.as_ref().map_or(0, |snapshot| snapshot.sequence),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    // What the own ports were seen to speak, where that is new.
    fn lessons(&self) -> Option<wire::WatchRequest> {
        let is_new = self.questions.learned.borrow().is_untold();
        is_new.then(|| self.report()).flatten()
    }

    // Acknowledges what is held, and says what could not be applied as written.
    fn report(&self) -> Option<wire::WatchRequest> {
        let snapshot = Arc::clone(&self.held.as_ref()?.snapshot.borrow());
        let identity = Arc::clone(&self.identity.borrow());
        Some(message(Kind::Report(wire::Report {
            epoch: snapshot.epoch,
            sequence: snapshot.sequence,
            complaints: snapshot.policies.complaints().to_vec(),
            learned: self.questions.learned.borrow_mut().take_untold(),
            certificate_expires: identity.svid.leaf.not_after,
            bundle_epoch: identity.bundle.epoch,
            bundle_sequence: identity.bundle.sequence,
            certificate_authorities: identity
                .svid
                .chain
                .iter()
                .filter_map(|der| svid::authority_key_id(der))
                .collect(),
        })))
    }
}

impl From<tonic::Status> for FollowError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

fn ask(question: &Question) -> wire::WatchRequest {
    message(Kind::Ask(question.into()))
}

fn message(kind: Kind) -> wire::WatchRequest {
    wire::WatchRequest { kind: Some(kind) }
}

fn with_cause(error: &ApplyError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::IpAddr, path::PathBuf};

    use douane_proto::{id::TrustDomain, svid::Leaf, wire::answer};

    use crate::tls::channel::Dialer;

    fn follower() -> (Follower, oneshot::Receiver<Mesh>) {
        let id: douane_proto::id::WorkloadId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let leaf = Leaf { id: id.clone(), not_before: 0, not_after: 0, serial: String::new() };
        let svid = svid::Svid { leaf, chain: Vec::new(), key: Arc::default() };
        let trust_domain = TrustDomain::parse("cluster.local").unwrap();
        let bundle = Arc::new(TrustBundle::of_roots(trust_domain, Vec::new()));
        let identity = watch::channel(Arc::new(Identity { svid, bundle, generation: 1 })).1;
        let control_plane = ControlPlane {
            host: "127.0.0.1".to_owned(),
            port: 1,
            id,
            bundle_file: PathBuf::new(),
            dialer: Dialer::new(|_| async { Err(std::io::ErrorKind::NotFound.into()) }),
        };
        Follower::new(control_plane, "shop/web-0".to_owned(), identity, watch::channel(None).0, Rc::new(()))
    }

    fn delta(epoch: u64, sequence: u64) -> wire::Delta {
        wire::Delta { epoch, sequence, ..wire::Delta::default() }
    }

    fn full(epoch: u64) -> wire::Delta {
        let own = wire::Workload {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            service_account: "web".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            dialect: wire::Dialect::Douane1.into(),
            ..wire::Workload::default()
        };
        let mesh =
            wire::MeshSettings { trust_domain: "cluster.local".to_owned(), ..wire::MeshSettings::default() };
        wire::Delta {
            full: true,
            mesh: Some(mesh),
            own: Some(own),
            policies: Some(wire::PolicySet::default()),
            ..delta(epoch, 1)
        }
    }

    fn answer(question: &Question) -> wire::Answer {
        let service = wire::Service { namespace: "shop".to_owned(), ..wire::Service::default() };
        wire::Answer { question: Some(question.into()), found: Some(answer::Found::Service(service)) }
    }

    fn address() -> Question {
        Question::Address(IpAddr::from([10, 96, 0, 1]))
    }

    #[tokio::test]
    async fn an_answer_is_held_across_a_new_stream_until_it_is_given_again() {
        let (mut follower, mesh) = follower();
        follower.take(full(7)).unwrap();
        let mesh = mesh.await.unwrap();
        let asked = mesh.find(address());
        let answers = async {
            tokio::task::yield_now().await;
            let answers = vec![answer(&address())];
            follower.take(wire::Delta { answers, ..delta(7, 2) }).unwrap();
        };
        let (found, ()) = tokio::join!(asked, answers);
        assert!(matches!(found, Some(Found::Service(_))));
        follower.take(full(8)).unwrap();
        assert!(matches!(mesh.find(address()).await, Some(Found::Service(_))));
        let unknown = wire::Answer {
            question: Some((&address()).into()),
            found: Some(answer::Found::Unknown(wire::Unknown {})),
        };
        follower.take(wire::Delta { answers: vec![unknown], ..delta(8, 2) }).unwrap();
        assert_eq!(mesh.find(address()).await, Some(Found::Unknown));
    }

    #[tokio::test]
    async fn a_gap_changes_nothing_and_asks_for_a_full_set() {
        let (mut follower, mesh) = follower();
        follower.take(full(7)).unwrap();
        let mesh = mesh.await.unwrap();
        assert!(matches!(follower.take(delta(7, 3)), Err(FollowError::Apply(ApplyError::Gap { .. }))));
        assert_eq!(mesh.snapshot().sequence, 1);
        follower.full_wanted = true;
        let Some(Kind::Hello(hello)) = follower.hello().kind else { panic!("no hello") };
        assert_eq!((hello.epoch, hello.sequence), (0, 0));
        assert!(follower.take(delta(7, 2)).is_err(), "only a full set will do");
        follower.take(full(9)).unwrap();
        assert_eq!(mesh.snapshot().epoch, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_an_answer_ends_after_a_second() {
        let (mut follower, mesh) = follower();
        follower.take(full(7)).unwrap();
        let mesh = mesh.await.unwrap();
        let began = Instant::now();
        assert_eq!(mesh.find(address()).await, None);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }

    #[test]
    fn what_waits_to_be_said_is_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..3 {
            waiting.extend((0..MOST_WAITING).map(|_| ask(&address())));
        }
        assert_eq!(waiting.0.len(), MOST_WAITING);
    }

    #[tokio::test]
    async fn the_law_is_told_only_when_it_changes() {
        let (mut follower, mesh) = follower();
        follower.take(full(7)).unwrap();
        let mut policies = mesh.await.unwrap().policies();
        policies.mark_unchanged();
        follower.take(delta(7, 2)).unwrap();
        assert!(!policies.has_changed().unwrap());
        let law = Some(wire::PolicySet::default());
        follower.take(wire::Delta { policies: law, ..delta(7, 3) }).unwrap();
        assert!(policies.has_changed().unwrap());
    }
}
