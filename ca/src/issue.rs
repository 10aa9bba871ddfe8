//! The identity service on the wire: attest who asks, sign the key, answer; one audit line for each certificate and each
//! refusal.
//!
//! Cheap refusals come first, and the work is bounded: what would wait too long is told to come back. Knows not how
//! evidence is judged (`attest`), nor what a certificate looks like (`authority`).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::wire::{
    IssueRequest, IssueResponse, identity_server::Identity, issue_request::Evidence as WireEvidence,
};
use tokio::{sync::Semaphore, time};
use tonic::{Code, Request, Response, Status, async_trait};

use crate::{
    attest::{AttestError, Attestor, Evidence},
    authority::{Authority, IssueError, Issued},
    metrics::Metrics,
    peer::Peer,
};

/// Requests that may wait for a worker; each holds at most [`MAX_REQUEST_BYTES`].
const MAX_WAITING: usize = 1024;
/// Longer than this nobody waits: the caller is told to come back, while its old certificate still lives.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// A token of 16 KiB and a request of 8 KiB, with room for the frame.
pub(crate) const MAX_REQUEST_BYTES: usize = 32 * 1024;

/// Answers `douane.v1.Identity`.
pub struct IdentityService {
    office: Arc<Office>,
    waiting: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

struct Office {
    attestor: Arc<Attestor>,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Attest(#[from] AttestError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("too many requests at once; come back")]
    Overload,
}

impl IdentityService {
    /// A service with as many workers as the machine has cores.
    #[must_use]
    pub fn new(attestor: Arc<Attestor>, authority: Arc<Authority>, metrics: Arc<Metrics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            office: Arc::new(Office { attestor, authority, metrics }),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            workers: Arc::new(Semaphore::new(cores)),
        }
    }

    async fn answer(&self, request: IssueRequest, peer: &Peer) -> Result<IssueResponse, Status> {
        let kind = evidence_kind(&request);
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(self.office.refuse(&Refusal::Overload, kind, peer));
        };
        let worker = time::timeout(MAX_WAIT, Arc::clone(&self.workers).acquire_owned()).await;
        let Ok(Ok(worker)) = worker else {
            return Err(self.office.refuse(&Refusal::Overload, kind, peer));
        };
        let office = Arc::clone(&self.office);
        let asker = peer.clone();
        // Signatures take a fraction of a millisecond, a spent join token waits for the disk: both off the reactor.
        let work = tokio::task::spawn_blocking(move || {
            let answer = office.work(&request, &asker, SystemTime::now());
            drop(worker);
            answer.map_err(|refusal| office.refuse(&refusal, kind, &asker))
        });
        work.await.unwrap_or_else(|_| Err(Status::internal("the request could not be processed")))
    }
}

impl Office {
    fn work(&self, request: &IssueRequest, peer: &Peer, now: SystemTime) -> Result<IssueResponse, Refusal> {
        let evidence = match &request.evidence {
            Some(WireEvidence::ServiceAccountToken(token)) => Evidence::ServiceAccountToken(token),
            Some(WireEvidence::JoinToken(token)) => Evidence::JoinToken(token),
            None => return Err(AttestError::NoEvidence.into()),
        };
        Authority::refuse_oversized(&request.csr)?;
        let attested = self.attestor.attest(evidence, now)?;
        let wanted =
            (request.lifetime_seconds != 0).then(|| Duration::from_secs(request.lifetime_seconds.into()));
        let issued = self.authority.issue(&request.csr, &attested.id, wanted, now)?;
        // Signed, but nobody has it yet: a single-use token is spent before the certificate leaves.
        attested.spend()?;

        self.record(&issued, &attested, peer, now);
        let bundle = self.authority.bundle().borrow().clone();
        Ok(IssueResponse {
            chain: issued.chain,
            bundle: Some((&*bundle).into()),
            signed_at_ms: milliseconds(now),
        })
    }

    fn record(&self, issued: &Issued, attested: &crate::attest::Attested, peer: &Peer, now: SystemTime) {
        let lifetime = issued.not_after - milliseconds(now) / 1000;
        tracing::info!(
            target: "douane::audit",
            identity = %attested.id,
            serial = %issued.serial,
            lifetime_seconds = lifetime,
            evidence = attested.evidence,
            pod = attested.pod.as_deref(),
            peer = %peer.address,
            "issued a certificate"
        );
        self.metrics.issued(attested.evidence);
    }

    fn refuse(&self, refusal: &Refusal, evidence: &'static str, peer: &Peer) -> Status {
        tracing::warn!(
            target: "douane::audit",
            reason = %refusal,
            label = refusal.label(),
            evidence,
            peer = %peer.address,
            "refused a certificate"
        );
        self.metrics.refused(refusal.label());
        refusal.status()
    }
}

impl Refusal {
    fn label(&self) -> &'static str {
        match self {
            Self::Attest(error) => error.label(),
            Self::Issue(IssueError::Csr(_)) => "csr",
            Self::Issue(_) => "sign",
            Self::Overload => "overload",
        }
    }

    // What the caller can mend is said; what went wrong inside is not.
    fn status(&self) -> Status {
        let code = match self {
            Self::Attest(AttestError::NoEvidence) | Self::Issue(IssueError::Csr(_)) => Code::InvalidArgument,
            Self::Attest(AttestError::NoKeys) => Code::Unavailable,
            Self::Attest(AttestError::Storage(_)) | Self::Issue(_) => {
                return Status::new(Code::Unavailable, "the authority cannot sign now");
            }
            Self::Attest(_) => Code::Unauthenticated,
            Self::Overload => Code::ResourceExhausted,
        };
        Status::new(code, self.to_string())
    }
}

#[async_trait]
impl Identity for IdentityService {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        self.answer(request.into_inner(), &peer).await.map(Response::new)
    }
}

fn evidence_kind(request: &IssueRequest) -> &'static str {
    match request.evidence {
        Some(WireEvidence::ServiceAccountToken(_)) => "service_account_token",
        Some(WireEvidence::JoinToken(_)) => "join_token",
        None => "none",
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
