//! The authority: a sealed root, an intermediate in memory that it replaces in time, and what they sign.
//!
//! Knows not who may have which identity (`attest` says that), nor the wire (`issue`). Sidecars trust roots only, so
//! that a new intermediate needs no announcement.

mod check;
mod csr;
mod key_hash;
mod root;
mod sign;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::{Svid, SvidError, TrustBundle},
};
use rcgen::KeyPair;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::state::{StateFolder, StateLock};

pub use csr::CsrError;
pub use key_hash::key_hash;
pub use root::RootError;
pub use sign::SignError;
use sign::{Order, Signer};

/// Signs identities of one trust domain.
pub struct Authority {
    trust_domain: TrustDomain,
    root: Signer,
    intermediate: RwLock<Arc<Signer>>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    default_life: Duration,
    _lock: StateLock,
}

/// A certificate that was signed for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER: the leaf, then its intermediate.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's serial number in hexadecimal.
    pub serial: String,
    /// The end of the leaf's life, seconds since 1970.
    pub not_after: i64,
    /// The id of the root that vouches for it.
    pub authority: String,
}

/// When the authority's own certificates end, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The root.
    pub root: i64,
    /// The intermediate in use.
    pub intermediate: i64,
}

/// Why a request for a certificate failed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request itself is at fault.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The authority could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The authority's own certificate is not what it should be.
    #[error("our own certificate")]
    Own(#[from] SvidError),
}

impl Authority {
    /// Opens the authority in `folder`, or makes one where there is no state at all. Leaves live `default_life` unless
    /// asked otherwise.
    ///
    /// # Errors
    /// [`RootError`]: a state that is there in part, damaged or foreign is never replaced.
    pub fn open(
        folder: &StateFolder,
        trust_domain: &TrustDomain,
        default_life: Duration,
        now: SystemTime,
    ) -> Result<Self, RootError> {
        let lock = folder.lock()?;
        let root = root::open(folder, trust_domain, unix(now))?;
        let intermediate = root
            .intermediate(trust_domain, unix(now))
            .map_err(|source| RootError::Signer { path: folder.root(), source })?;
        let bundle = TrustBundle {
            trust_domain: trust_domain.clone(),
            roots: vec![root.certificate.clone()],
            // A later root begins a later history.
            epoch: u64::try_from(root.not_before).unwrap_or(0),
            sequence: 1,
        };
        Ok(Self {
            trust_domain: trust_domain.clone(),
            root,
            intermediate: RwLock::new(Arc::new(intermediate)),
            bundle: watch::Sender::new(Arc::new(bundle)),
            default_life,
            _lock: lock,
        })
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

    /// Replaces the intermediate when it has lived half its life, or when the clock says that it is not valid yet.
    ///
    /// # Errors
    /// [`SignError`]: the old one stays in use.
    pub fn renew(&self, now: SystemTime) -> Result<(), SignError> {
        let now = unix(now);
        if !due(&self.current(), now) {
            return Ok(());
        }
        let fresh = Arc::new(self.root.intermediate(&self.trust_domain, now)?);
        *self.intermediate.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// When its own certificates end.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        Expiry { root: self.root.not_after, intermediate: self.current().not_after }
    }

    fn sign(
        &self,
        key: &impl rcgen::PublicKeyData,
        order: &Order<'_>,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        let signer = self.current();
        let leaf = signer.leaf(key, order, unix(now))?;
        Ok(Issued {
            chain: vec![leaf.certificate, signer.certificate.clone()],
            serial: leaf.serial,
            not_after: leaf.not_after,
            authority: key_hash(&self.root.certificate),
        })
    }

    fn current(&self) -> Arc<Signer> {
        Arc::clone(&self.intermediate.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn due(signer: &Signer, now: i64) -> bool {
    let half = signer.not_before + (signer.not_after - signer.not_before) / 2;
    now >= half || now < signer.not_before
}

/// Seconds since 1970, negative before.
fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}
