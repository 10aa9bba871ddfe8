//! The authority: roots on the disk that come and go by one state machine, an intermediate in memory, and what they sign.
//!
//! - `standing`, `plan`: where each root stands and what comes next, as values and pure functions
//! - `document`, `seal`, `keep`, `horizon`: how that is kept on the disk
//! - `rotation`: the steps, durable before they take effect; `pen`: what signs now
//! - `lease`, `places`, `kubernetes`: the same shared by the replicas of a cluster
//! - `follower`: the part of a replica that another leads; `roll`: what replicas tell each other of who holds certificates
//! - `sign`, `jwt`, `csr`, `check`: certificates and tokens
//!
//! Knows not who may have which identity (`attest` says that), nor the wire (`issue`). Sidecars trust roots only, so
//! that a new intermediate needs no announcement.

mod above;
mod armor;
mod change;
mod check;
mod csr;
mod document;
mod follower;
mod given;
mod horizon;
mod issued;
mod jwt;
mod keep;
mod key_hash;
mod kubernetes;
mod lease;
mod pen;
mod places;
mod plan;
mod roll;
mod rotation;
mod seal;
mod sign;
mod standing;
mod status;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::{Svid, TrustBundle},
};
use rcgen::KeyPair;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    holders::{Held, Holder, Holders},
    state::{Disk, StateFolder, StateLock},
};

pub use above::{Elsewhere, Vouched};
pub use armor::{block as pem_block, certificates as pem_certificates};
pub use change::{Change, Force, RotateError};
pub use csr::CsrError;
pub use given::{GivenError, GivenRoot};
pub use issued::{Expiry, IssueError, Issued};
pub use jwt::JwtError;
pub use keep::OpenError;
pub use key_hash::key_hash;
pub use kubernetes::{ClusterShelf, ShelfError};
pub use places::Silence;
pub use rotation::{FRESH_FOR, Terms};
pub use seal::SealError;
pub use sign::{Petition, SignError};
pub use status::{Laggard, Lagging, Pending, Root, Sidecars, Status};

use change::Changed;
use follower::{Follower, Part};
use horizon::Horizon;
use keep::Keep;
use pen::Pen;
use plan::Facts;
use roll::{Others, Roll};
use seal::Seal;
use sign::Order;
use status::Seen;

/// Whom nobody can name: they were given certificates by a control plane that is gone.
const BEFORE_START: &str = "(whoever got a certificate before this control plane started)";

/// Seconds within which the sidecars are back on their streams, and tell which bundle they hold.
const RESTORED_SHOWS: i64 = 600;

/// Signs identities of one trust domain.
pub struct Authority {
    trust_domain: TrustDomain,
    default_life: Duration,
    part: Mutex<Part>,
    leads: AtomicBool,
    pen: Pen,
    holders: Holders,
    bundle: watch::Sender<Arc<TrustBundle>>,
    // When the state was read, seconds since 1970, and its epoch.
    opened: (i64, u64),
    folder: StateFolder,
    others: Mutex<Others>,
    // Of a folder that is ours alone while the state lies elsewhere.
    _own: Option<StateLock>,
}

/// How an authority is set up.
pub struct Setup {
    /// The lives of its certificates.
    pub terms: Terms,
    /// The file with the key that seals private keys at rest; without it they lie in a file that only its owner reads.
    pub seal_key: Option<PathBuf>,
    /// Who holds certificates and bundles: discovery tells it.
    pub holders: Holders,
    /// The disk.
    pub disk: Disk,
    /// Who signs intermediates, where it is not a root that we make and keep.
    pub elsewhere: Option<Elsewhere>,
}

impl Setup {
    /// The usual lives, where leaves live `leaf_life`.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, leaf_life: Duration) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let terms = Terms {
            trust_domain,
            leaf_life,
            // Twice the longest leaf: renewed at half of it, so that no leaf is ever cut short by its signer.
            intermediate_life: DAY * 2,
            root_life: DAY * 90,
            // Five times what whoever fetches bundles is told to wait.
            root_lead: Duration::from_secs(5 * 60),
        };
        Self { terms, seal_key: None, holders: Holders::default(), disk: Disk::default(), elsewhere: None }
    }
}

impl Authority {
    /// Opens the authority in `folder`, or makes one where there is no state at all. Leaves live `default_life` unless
    /// asked otherwise.
    ///
    /// # Errors
    /// [`OpenError`]: a state that is there in part, damaged or foreign is never replaced.
    pub fn open(
        folder: &StateFolder,
        trust_domain: &TrustDomain,
        default_life: Duration,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        Self::open_with(folder, Setup::new(trust_domain.clone(), default_life), now)
    }

    /// The same, set up otherwise.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(folder: &StateFolder, setup: Setup, now: SystemTime) -> Result<Self, OpenError> {
        let now = unix(now);
        let Setup { terms, seal_key, holders, disk, elsewhere } = setup;
        let seal = match &seal_key {
            Some(file) => Seal::from_file(file)
                .map_err(|source| OpenError::Sealed { path: folder.authority(), source })?,
            None => Seal::Open,
        };
        let keep = Keep::new(folder, disk.clone(), seal);
        let (by, own) = follower::right_to_lead(folder, &keep)?;
        let (trust_domain, default_life) = (terms.trust_domain.clone(), terms.leaf_life);
        let (part, pen) = match by {
            Some(by) => {
                let (rotation, pen) = follower::lead(folder, terms, (keep, disk), elsewhere, now)?;
                (Part::Leads { rotation: Box::new(rotation), by }, pen)
            }
            None => {
                let horizon = Arc::new(Horizon::open(folder, disk, now)?);
                let parts = (keep, Arc::clone(&horizon));
                let (follower, signing) = Follower::open(folder, terms, parts, elsewhere, now)?;
                let pen = Pen::new(signing, horizon);
                // Nothing is signed before the leader can know of us.
                pen.hold_until(Instant::now());
                (Part::Follows(Box::new(follower)), pen)
            }
        };
        let authority = Self {
            default_life,
            leads: AtomicBool::new(matches!(part, Part::Leads { .. })),
            bundle: part.bundle(),
            opened: (now, part.standing().epoch),
            part: Mutex::new(part),
            pen,
            trust_domain,
            holders,
            folder: folder.clone(),
            others: Mutex::default(),
            _own: own,
        };
        authority.hold_while_fresh(Instant::now());
        if !authority.leads() {
            authority.look(now).map_err(|error| match error {
                RotateError::State(error) => error,
                error => OpenError::Follow { path: folder.authority(), reason: error.to_string() },
            })?;
        }
        Ok(authority)
    }

    /// The trust domain whose identities it signs.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots to trust, now and whenever they change.
    #[must_use]
    pub fn bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Refuses what is too long to be read, before anything costs time.
    ///
    /// # Errors
    /// [`CsrError::TooLong`].
    pub fn refuse_oversized(csr: &[u8]) -> Result<(), IssueError> {
        if csr.len() > csr::MAX_CSR_BYTES {
            return Err(CsrError::TooLong(csr.len()).into());
        }
        Ok(())
    }

    /// Signs the public key of a request (PKCS#10 DER) as `id`. `wanted` is clamped to what leaves may live; a leaf never
    /// outlives its signer.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(
        &self,
        csr: &[u8],
        id: &WorkloadId,
        wanted: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let key = csr::PublicKey::from_csr(csr)?;
        let order = Order { id, dns_names: &[], lifetime: wanted.unwrap_or(self.default_life) };
        Ok(self.sign(&key, &order, now)?)
    }

    /// An SVID of our own with a fresh key, for `dns_names` too: what the control plane's listener shows.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn own_svid(
        &self,
        id: &WorkloadId,
        dns_names: &[String],
        now: SystemTime,
    ) -> Result<Svid, IssueError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(SignError::from)?;
        let issued = self.sign(&key, &Order { id, dns_names, lifetime: self.default_life }, now)?;
        Ok(Svid::parse(issued.chain, Zeroizing::new(key.serialize_der()))?)
    }

    /// Signs claims (a JSON object with `exp`) as a JWT, with the key of the root that signs now.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn sign_jwt(&self, claims: &[u8], now: SystemTime) -> Result<String, JwtError> {
        self.pen.jwt(claims, unix(now))
    }

    /// `issued` leaves for `name` (`namespace/pod`, or the identity where there is no pod) with the bundle.
    pub fn handed_out(&self, name: &str, issued: &Issued) {
        let bundle = self.bundle.borrow().place();
        let held = Held { bundle, until: issued.not_after, authorities: issued.key_ids.clone() };
        self.holders.given(name, held);
    }

    /// Does what is due: a new intermediate, the next step of a root's life. What everybody trusts is published when it
    /// returns.
    ///
    /// # Errors
    /// [`RotateError`]: nothing has changed, or less than was due; it is tried again at the next call.
    pub fn advance(&self, now: SystemTime) -> Result<(), RotateError> {
        self.look(unix(now))
    }

    fn look(&self, now: i64) -> Result<(), RotateError> {
        let looked = Instant::now();
        let mut part = self.part();
        part.lead_if_nobody_does(&self.folder, &self.pen, now)?;
        self.leads.store(matches!(&*part, Part::Leads { .. }), Ordering::Release);
        let advanced = match &mut *part {
            Part::Leads { rotation, .. } => rotation.advance(&self.pen, &self.facts(now), now),
            Part::Follows(follower) => follower.look(&self.pen, now),
        };
        if matches!(advanced, Ok(Changed::Yes)) {
            // Whoever shows a certificate of ours looks again even if the bundle is the same: another root may sign.
            self.bundle.send_modify(|_| {});
        }
        if let (Part::Follows(_), Ok(_)) = (&*part, &advanced) {
            self.tell_leader(part.standing().bundle().place(), now)?;
        }
        if advanced.is_ok() {
            // From before it was read: what changed since then is not known.
            match &*part {
                Part::Follows(_) => self.pen.hold_until(looked + FRESH_FOR),
                Part::Leads { .. } => self.hold_while_fresh(looked),
            }
        }
        advanced.map(drop)
    }

    // Who leads by a lease may have lost it, and a lock cannot be lost.
    fn hold_while_fresh(&self, looked: Instant) {
        if self.folder.shelf().is_some() && self.leads() {
            self.pen.hold_until(looked + FRESH_FOR);
        }
    }

    /// Is what signs fresh? A replica that could not read the state for some seconds signs nothing until it can.
    #[must_use]
    pub fn may_sign(&self) -> bool {
        self.pen.is_fresh()
    }

    /// We end: another replica may lead at once.
    pub fn leave(&self) {
        if let Some(shelf) = self.folder.shelf() {
            self.pen.hold_until(Instant::now());
            shelf.leave();
        }
    }

    /// May we change the authority? Otherwise another replica does.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Begins to replace the root. Says which one comes.
    ///
    /// # Errors
    /// [`RotateError`].
    pub fn rotate_root(&self, force: Force, now: SystemTime) -> Result<String, RotateError> {
        let id = self.part().rotation()?.rotate_root(force, unix(now))?;
        self.advance(now)?;
        Ok(id)
    }

    /// Replaces the intermediate at once. Says which one signs now.
    ///
    /// # Errors
    /// [`RotateError`].
    pub fn rotate_intermediate(&self, now: SystemTime) -> Result<String, RotateError> {
        self.part().rotation()?.rotate_intermediate(&self.pen, unix(now))
    }

    /// Marks a root or an intermediate as one that must sign no more: another takes its place, and everybody whom it
    /// vouches for is asked to renew.
    ///
    /// # Errors
    /// [`RotateError`].
    pub fn taint(&self, name: &str, now: SystemTime) -> Result<(), RotateError> {
        self.part().rotation()?.taint(name, &self.pen, unix(now))?;
        self.advance(now)
    }

    /// What an operator wants to know; whoever leads says it.
    ///
    /// # Errors
    /// [`RotateError::Follows`].
    pub fn status(&self, now: SystemTime) -> Result<Status, RotateError> {
        let now = unix(now);
        let mut part = self.part();
        let rotation = part.rotation()?;
        let past = rotation.past.iter().filter(|past| past.not_after > now);
        let seen = Seen {
            standing: &rotation.standing,
            waiting: &rotation.waiting,
            past: past.map(|past| past.id.clone()).collect(),
            root_life: rotation.terms.root_life,
            root_lead: rotation.terms.root_lead,
            signing: &self.pen.current(),
            facts: &self.facts(now),
            signed_until: self.pen.horizon.until(),
        };
        Ok(Status::running(&seen, now))
    }

    /// What has changed since the last call, for the audit log.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        self.part().rotation().map(|rotation| std::mem::take(&mut rotation.changes)).unwrap_or_default()
    }

    /// When its own certificates end.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        let signing = self.pen.current();
        Expiry { root: signing.root_ends(), intermediate: signing.intermediate.not_after }
    }

    fn sign(
        &self,
        key: &impl rcgen::PublicKeyData,
        order: &Order<'_>,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        if *order.id.trust_domain() != self.trust_domain {
            return Err(SignError::OtherDomain(Box::new(order.id.clone())));
        }
        let (leaf, signing) = self.pen.leaf(key, order, unix(now))?;
        Ok(Issued {
            chain: signing.chain(leaf.certificate),
            serial: leaf.serial,
            not_after: leaf.not_after,
            authority: signing.root_id().to_owned(),
            key_ids: signing.authorities(),
        })
    }

    fn tell_leader(&self, place: (u64, u64), now: i64) -> Result<(), OpenError> {
        let roll = Roll::of(&self.own_holders(now).0, place, &self.pen.current().authorities());
        Ok(roll.write(&self.folder)?)
    }

    // Of this control plane's own.
    fn own_holders(&self, now: i64) -> (Vec<Holder>, (u64, u64)) {
        let (mut holders, highest_seen) = self.holders.all(now);
        let before = self.pen.horizon.before;
        if before > now {
            holders.push(Holder {
                name: BEFORE_START.to_owned(),
                connected: false,
                knows: (0, 0),
                until: before,
                authorities: Vec::new(),
            });
        }
        (holders, highest_seen)
    }

    // Of all that sign by the state that we lead by.
    fn facts(&self, now: i64) -> Facts {
        let (mut holders, highest_seen) = self.own_holders(now);
        if self.folder.replica().is_some() {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            holders.extend(others.holders(&self.folder, now));
        }
        Facts { holders, highest_seen: if self.may_be_restored(now) { highest_seen } else { (0, 0) } }
    }

    // A state comes back from a backup while nobody runs on it. Later, and twice, a sidecar that tells of a newer bundle lies:
    // with every new history all must acknowledge again, and no rotation would come to its end.
    fn may_be_restored(&self, now: i64) -> bool {
        let (opened, epoch) = self.opened;
        now.saturating_sub(opened) < RESTORED_SHOWS && self.bundle.borrow().epoch == epoch
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies in a folder that no control plane runs on.
///
/// # Errors
/// [`OpenError`]: there is nothing, or it is damaged.
pub fn status_at_rest(folder: &StateFolder, now: SystemTime) -> Result<Status, OpenError> {
    Ok(Status::at_rest(&keep::at_rest(folder)?, unix(now)))
}

/// Seconds since 1970, negative before.
fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}
