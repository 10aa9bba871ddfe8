//! The office behind every door that certificates leave by: who asks is attested, the key is signed, and the answer is
//! written down before it goes.
//!
//! Each interface (our own RPC, Istio's) hands in a [`Petition`] and gets a certificate or a [`Refusal`], so that
//! attestation, bounds, audit and metrics are the same for all. Knows no wire (`issue`, `istio`), nor how evidence is
//! judged (`attest`) and what a certificate looks like (`authority`).
//! - `refusal`: why nothing was signed, in the words of the log, of metrics and of gRPC
//! - `token`: what a JWT-SVID says
//! - `record`: what of it is written into the audit log
//! - `queue`: who waits, the nearest to its end first; `clock`: a clock that went back signs nothing

mod clock;
mod queue;
mod record;
mod refusal;
mod token;

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use douane_proto::{id::WorkloadId, svid::TrustBundle};
use tokio::sync::watch;

use crate::{
    attest::{Attested, Attestor, Evidence},
    audit::{Ledger, Record},
    authority::{Authority, Issued},
    budget::{Allowance, Budgets, household},
    config::Durability,
    metrics::Metrics,
    peer::{Origin, Peer},
};
use clock::LastSigned;
use queue::{Queue, Urgency};

pub use refusal::Refusal;
pub use token::Token;

/// Of one address, or one user of this machine: many sidecars may start at once behind one that translates addresses.
const OF_ONE_SOURCE: Allowance = Allowance { burst: 1000.0, rate: 200.0 };
/// Evidence that proves nothing costs its source as much as so many requests: guessing ends soon.
const FAILURE_COST: f64 = 10.0;
/// Of one identity: a deployment of a thousand replicas has one, and starts at once.
const OF_ONE_IDENTITY: Allowance = Allowance { burst: 1000.0, rate: 50.0 };
/// Who has no certificate yet comes before those whose own lives for longer than this, seconds: it serves nobody until
/// then, and they all do.
const NEWCOMER: Urgency = 300;

/// Whoever waits for a token has a certificate.
const LEAST_URGENT: Urgency = Urgency::MAX;

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
    queue: Queue<Signed>,
    sources: Budgets<Source>,
}

// What a worker made.
enum Signed {
    Certificate(Box<Issued>, Attested),
    Nothing(Attested),
    Token(String),
}

// Whose budget pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Address(IpAddr),
    User(u32),
}

// What a worker needs.
struct Desk {
    attestor: Arc<Attestor>,
    authority: Arc<Authority>,
    identities: Budgets<WorkloadId>,
    signed: LastSigned,
}

impl Office {
    /// An office with as many workers as the machine has cores.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(
        attestor: Arc<Attestor>,
        authority: Arc<Authority>,
        (ledger, durability): (Ledger, Durability),
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let now = Instant::now();
        let (identities, signed) = (Budgets::new(OF_ONE_IDENTITY, now), LastSigned::new());
        Ok(Self {
            desk: Arc::new(Desk { attestor, authority, identities, signed }),
            ledger,
            durability,
            metrics,
            queue: Queue::new(cores)?,
            sources: Budgets::new(OF_ONE_SOURCE, now),
        })
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
        let (kind, begun) = (petition.evidence.kind(), Instant::now());
        let outcome = match self.work(petition, peer, now).await {
            Ok((issued, attested)) => {
                self.record(issued, &attested, peer).await.map(|issued| (issued, attested))
            }
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok((issued, attested)) => {
                self.metrics.issued(attested.evidence, begun.elapsed());
                Ok(issued)
            }
            Err(refusal) => Err(self.refuse(refusal, kind, peer).await),
        }
    }

    /// A JWT-SVID of whom the certificate of the connection proves, or why there is none. Recorded before this returns.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn token(
        &self,
        audiences: &[String],
        wanted: Option<Duration>,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<Token, Refusal> {
        let begun = Instant::now();
        match self.sign_token(audiences, wanted, peer, now).await {
            Ok(token) => {
                self.metrics.issued("jwt_svid", begun.elapsed());
                Ok(token)
            }
            Err(refusal) => Err(self.refuse(refusal, "certificate", peer).await),
        }
    }

    async fn sign_token(
        &self,
        audiences: &[String],
        wanted: Option<Duration>,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<Token, Refusal> {
        self.sources.take(source(peer), 1.0, Instant::now()).map_err(Refusal::Source)?;
        let id = peer.id.clone().ok_or(Refusal::NoCertificate)?;
        let at = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let at = (rand::random(), i64::try_from(at).unwrap_or(i64::MAX));
        let claims = token::claims(&id, audiences, wanted, at).ok_or(Refusal::Malformed(token::AUDIENCES))?;
        let (record, expires) = (record::token(&claims, &id, peer), claims.expires);
        let desk = Arc::clone(&self.desk);
        let bytes = claims.json.len();
        let work = move || desk.sign(&id, &claims.json, now).map(Signed::Token);
        let Signed::Token(text) = self.queue.work((LEAST_URGENT, bytes), work).await? else {
            return Err(Refusal::Broken);
        };
        self.write(record).await?;
        Ok(Token { text, expires })
    }

    /// Records what an interface refuses by its own rules; `kind` is the evidence's.
    pub async fn refuse(&self, refusal: Refusal, kind: &'static str, peer: &Peer) -> Refusal {
        if matches!(&refusal, Refusal::Attest(error) if !error.is_ours()) {
            self.sources.charge(source(peer), FAILURE_COST, Instant::now());
        }
        self.metrics.refused(refusal.label());
        // Nothing leaves in any case; that the log cannot be written, its writer says.
        let _ = self.ledger.refuse(record::refused(&refusal, kind, peer)).await;
        refusal
    }

    async fn record(&self, issued: Issued, attested: &Attested, peer: &Peer) -> Result<Issued, Refusal> {
        self.write(record::issued(&issued, attested, peer)).await?;
        Ok(issued)
    }

    async fn write(&self, record: Record) -> Result<(), Refusal> {
        match self.durability {
            Durability::Process => self.ledger.write(record).await?,
            Durability::Machine => self.ledger.append(record).await?,
        }
        Ok(())
    }

    async fn work(
        &self,
        petition: Petition,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<(Issued, Attested), Refusal> {
        // The cheap refusals first.
        self.sources.take(source(peer), 1.0, Instant::now()).map_err(Refusal::Source)?;
        Authority::refuse_oversized(&petition.csr)?;
        petition.evidence.refuse_misshapen()?;
        let petition = Arc::new(petition);
        let bytes = petition.csr.len() + petition.evidence.bytes();
        if self.desk.attestor.asks_others(&petition.evidence) {
            self.confirm(&petition, bytes, peer, now).await?;
        }
        let (desk, asker) = (Arc::clone(&self.desk), peer.clone());
        // Signatures take a fraction of a millisecond, a spent join token waits for the disk: both off the reactor.
        let work = move || {
            let (issued, attested) = desk.work(&petition, &asker, now)?;
            Ok(Signed::Certificate(Box::new(issued), attested))
        };
        match self.queue.work((urgency(peer, now), bytes), work).await? {
            Signed::Certificate(issued, attested) => Ok((*issued, attested)),
            Signed::Token(_) | Signed::Nothing(_) => Err(Refusal::Broken),
        }
    }

    // Garbage costs nobody else anything: what we can verify ourselves comes first.
    async fn confirm(
        &self,
        petition: &Arc<Petition>,
        bytes: usize,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let (desk, asker, asked) = (Arc::clone(&self.desk), peer.clone(), Arc::clone(petition));
        let work = move || Ok(Signed::Nothing(desk.attestor.attest(&asked.evidence, &asker, now)?));
        match self.queue.work((urgency(peer, now), bytes), work).await? {
            Signed::Nothing(attested) => {
                Ok(self.desk.attestor.confirm(&petition.evidence, &attested).await?)
            }
            Signed::Certificate(..) | Signed::Token(_) => Err(Refusal::Broken),
        }
    }
}

impl Desk {
    fn work(&self, petition: &Petition, peer: &Peer, now: SystemTime) -> Result<(Issued, Attested), Refusal> {
        let attested = self.attestor.attest(&petition.evidence, peer, now)?;
        self.identities.take(attested.id.clone(), 1.0, Instant::now()).map_err(Refusal::Identity)?;
        self.signed.admit(now)?;
        let issued = self.authority.issue(&petition.csr, &attested.id, petition.wanted, now)?;
        // Signed, but nobody has it yet: a single-use token is spent before the certificate leaves.
        attested.settle((&issued.serial, issued.not_after), now)?;
        self.authority.handed_out(&holder(&attested), &issued);
        Ok((issued, attested))
    }

    fn sign(&self, id: &WorkloadId, claims: &str, now: SystemTime) -> Result<String, Refusal> {
        self.identities.take(id.clone(), 1.0, Instant::now()).map_err(Refusal::Identity)?;
        self.signed.admit(now)?;
        Ok(self.authority.sign_jwt(claims.as_bytes(), now)?)
    }
}

// As its sidecar calls itself on its discovery stream.
fn holder(attested: &Attested) -> String {
    match attested.pod() {
        Some(pod) => format!("{}/{pod}", attested.id.namespace()),
        None => attested.id.to_string(),
    }
}

fn source(peer: &Peer) -> Source {
    match peer.from {
        Origin::Network(address) => Source::Address(household(address.ip())),
        Origin::Process { uid, .. } => Source::User(uid),
    }
}

// What a certificate on the connection says of the caller's need. It is the caller's to show it, and nobody's to forge.
fn urgency(peer: &Peer, now: SystemTime) -> Urgency {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let left = peer.certificate.as_ref().map_or(NEWCOMER, |shown| shown.not_after.saturating_sub(now));
    // Who has about as long to live waits in the order of coming: else a few seconds more would mean to wait for ever.
    Urgency::from(left.max(1).ilog2())
}
