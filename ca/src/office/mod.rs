//! The office behind every door that certificates leave by: who asks is attested, the key is signed, and the answer is
//! written down before it goes.
//!
//! Each interface (our own RPC, Istio's) hands in a [`Petition`] and gets a certificate or a [`Refusal`], so that
//! attestation, bounds, audit and metrics are the same for all. Knows no wire (`issue`, `istio`), nor how evidence is
//! judged (`attest`) and what a certificate looks like (`authority`).
//! - `refusal`: why nothing was signed, in the words of the log, of metrics and of gRPC
//! - `record`: what of it is written into the audit log

mod record;
mod refusal;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use douane_proto::svid::TrustBundle;
use tokio::{
    sync::{Semaphore, watch},
    time,
};

use crate::{
    attest::{Attested, Attestor, Evidence},
    audit::Ledger,
    authority::{Authority, Issued},
    config::Durability,
    metrics::Metrics,
    peer::Peer,
};

pub use refusal::Refusal;

/// Petitions that may wait for a worker; each holds at most a token and a request.
const MAX_WAITING: usize = 1024;
/// Longer than this nobody waits: the caller is told to come back, while its old certificate still lives.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// What somebody asks for.
pub struct Petition {
    /// What shows who asks.
    pub evidence: Evidence,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// The wanted lifetime; it is clamped to what the authority allows. `None`: the default.
    pub wanted: Option<Duration>,
}

/// Answers petitions.
pub struct Office {
    desk: Arc<Desk>,
    ledger: Ledger,
    durability: Durability,
    metrics: Arc<Metrics>,
    waiting: Semaphore,
    workers: Arc<Semaphore>,
}

// What a worker needs.
struct Desk {
    attestor: Arc<Attestor>,
    authority: Arc<Authority>,
}

impl Office {
    /// An office with as many workers as the machine has cores.
    #[must_use]
    pub fn new(
        attestor: Arc<Attestor>,
        authority: Arc<Authority>,
        (ledger, durability): (Ledger, Durability),
        metrics: Arc<Metrics>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            desk: Arc::new(Desk { attestor, authority }),
            ledger,
            durability,
            metrics,
            waiting: Semaphore::new(MAX_WAITING),
            workers: Arc::new(Semaphore::new(cores)),
        }
    }

    /// The roots that go with every certificate.
    #[must_use]
    pub fn bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.desk.authority.bundle()
    }

    /// A certificate for `petition`, or why there is none. Both are recorded before this returns; what cannot be recorded
    /// is refused.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn answer(&self, petition: Petition, peer: &Peer, now: SystemTime) -> Result<Issued, Refusal> {
        let kind = petition.evidence.kind();
        let outcome = match self.work(petition, peer, now).await {
            Ok((issued, attested)) => {
                self.record(issued, &attested, peer).await.map(|issued| (issued, attested))
            }
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok((issued, attested)) => {
                self.metrics.issued(attested.evidence);
                Ok(issued)
            }
            Err(refusal) => Err(self.refuse(refusal, kind, peer).await),
        }
    }

    /// Records what an interface refuses by its own rules; `kind` is the evidence's.
    pub async fn refuse(&self, refusal: Refusal, kind: &'static str, peer: &Peer) -> Refusal {
        self.metrics.refused(refusal.label());
        // Nothing leaves in any case; that the log cannot be written, its writer says.
        let _ = self.ledger.refuse(record::refused(&refusal, kind, peer)).await;
        refusal
    }

    async fn record(&self, issued: Issued, attested: &Attested, peer: &Peer) -> Result<Issued, Refusal> {
        let record = record::issued(&issued, attested, peer);
        match self.durability {
            Durability::Process => self.ledger.write(record).await?,
            Durability::Machine => self.ledger.append(record).await?,
        }
        Ok(issued)
    }

    async fn work(
        &self,
        petition: Petition,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<(Issued, Attested), Refusal> {
        Authority::refuse_oversized(&petition.csr)?;
        let _place = self.waiting.try_acquire().map_err(|_| Refusal::Overload)?;
        let worker = time::timeout(MAX_WAIT, Arc::clone(&self.workers).acquire_owned()).await;
        let Ok(Ok(worker)) = worker else { return Err(Refusal::Overload) };
        let (desk, peer) = (Arc::clone(&self.desk), peer.clone());
        // Signatures take a fraction of a millisecond, a spent join token waits for the disk: both off the reactor.
        let work = tokio::task::spawn_blocking(move || {
            let answer = desk.work(&petition, &peer, now);
            drop(worker);
            answer
        });
        work.await.unwrap_or(Err(Refusal::Broken))
    }
}

impl Desk {
    fn work(&self, petition: &Petition, peer: &Peer, now: SystemTime) -> Result<(Issued, Attested), Refusal> {
        let attested = self.attestor.attest(&petition.evidence, peer, now)?;
        let issued = self.authority.issue(&petition.csr, &attested.id, petition.wanted, now)?;
        // Signed, but nobody has it yet: a single-use token is spent before the certificate leaves.
        attested.settle((&issued.serial, issued.not_after), now)?;
        self.authority.handed_out(&holder(&attested), &issued);
        Ok((issued, attested))
    }
}

// As its sidecar calls itself on its discovery stream.
fn holder(attested: &Attested) -> String {
    match attested.pod() {
        Some(pod) => format!("{}/{pod}", attested.id.namespace()),
        None => attested.id.to_string(),
    }
}
