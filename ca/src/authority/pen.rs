//! What signs now: the root in use, the intermediate below it that lives in memory only, and the JWT key; one value that
//! is replaced as a whole, and never while something is being signed.
//!
//! Knows not when to replace it (`rotation`).

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use douane_proto::{id::TrustDomain, svid::subject_key_id};
use rcgen::PublicKeyData;

use super::{
    above::{Above, Elsewhere, Fresh},
    horizon::Horizon,
    jwt::{JwtError, JwtSigner},
    sign::{Order, SignError, SignedLeaf, Signer},
    standing::Slot,
};
/// What signs.
pub(crate) struct Signing {
    root: Top,
    above: Above,
    between: Vec<Vec<u8>>,
    jwt: Arc<JwtSigner>,
    pub(crate) intermediate: Arc<Signer>,
}

#[derive(Clone)]
struct Top {
    id: String,
    certificate: Vec<u8>,
    key_id: Vec<u8>,
    not_after: i64,
}

/// The live value, with one writer.
pub(crate) struct Pen {
    current: RwLock<Arc<Signing>>,
    pub(crate) horizon: Arc<Horizon>,
    // Nothing is signed after this; `None`: whoever holds the lock needs no lease.
    lease: RwLock<Option<Instant>>,
}

/// While this lives nothing is signed.
pub(crate) struct Lifted<'a> {
    current: RwLockWriteGuard<'a, Arc<Signing>>,
    horizon: &'a Horizon,
}

impl Signing {
    /// What signs below the root of `slot`, with a fresh intermediate.
    pub(crate) fn below(
        slot: &Slot,
        elsewhere: Option<&Elsewhere>,
        domain: &TrustDomain,
        (life, now): (Duration, i64),
    ) -> Result<Self, SignError> {
        let above = Above::of(slot, elsewhere, domain)?;
        let fresh = above.fresh(domain, life, now)?;
        Self::with(slot, above, fresh)
    }

    /// What signs below the root of `slot` with `fresh`, which `above` has signed.
    pub(crate) fn with(slot: &Slot, above: Above, fresh: Fresh) -> Result<Self, SignError> {
        let root = Top {
            id: slot.id.clone(),
            certificate: slot.certificate.clone(),
            key_id: slot.key_id.clone(),
            not_after: slot.not_after,
        };
        let jwt = Arc::new(JwtSigner::new(&slot.id, &slot.keys.jwt)?);
        Self { root, above, between: Vec::new(), jwt, intermediate: Arc::clone(&fresh.intermediate) }
            .having(fresh)
    }

    /// The same with another intermediate. Where that is below another root, the error says which.
    pub(crate) fn renewed(&self, domain: &TrustDomain, life: Duration, now: i64) -> Result<Self, SignError> {
        let fresh = self.above.fresh(domain, life, now)?;
        let (root, above, jwt) = (self.root.clone(), self.above.clone(), Arc::clone(&self.jwt));
        Self { root, above, between: Vec::new(), jwt, intermediate: Arc::clone(&fresh.intermediate) }
            .having(fresh)
    }

    fn having(self, fresh: Fresh) -> Result<Self, SignError> {
        if fresh.root != self.root.certificate {
            return Err(SignError::OtherRoot(fresh.root));
        }
        Ok(Self { between: fresh.between, intermediate: fresh.intermediate, ..self })
    }

    /// Would whoever signs the intermediates sign otherwise now?
    pub(crate) fn has_changed(&self) -> bool {
        matches!(&self.above, Above::Elsewhere(elsewhere) if (elsewhere.has_changed)())
    }

    /// DER: `leaf` and who vouches for it, up to the root and without it.
    pub(crate) fn chain(&self, leaf: Vec<u8>) -> Vec<Vec<u8>> {
        let above = [self.intermediate.certificate.clone()].into_iter().chain(self.between.iter().cloned());
        [leaf].into_iter().chain(above).collect()
    }

    /// Key identifiers of those who vouch for what it signs.
    pub(crate) fn authorities(&self) -> Vec<Vec<u8>> {
        let between = self.between.iter().filter_map(|der| subject_key_id(der));
        [self.intermediate.key_id.clone()]
            .into_iter()
            .chain(between)
            .chain([self.root.key_id.clone()])
            .collect()
    }

    /// The id of its root.
    pub(crate) fn root_id(&self) -> &str {
        &self.root.id
    }

    /// When its root ends, seconds since 1970.
    pub(crate) fn root_ends(&self) -> i64 {
        self.root.not_after
    }
}

impl Pen {
    pub(crate) fn new(signing: Signing, horizon: Arc<Horizon>) -> Self {
        Self { current: RwLock::new(Arc::new(signing)), horizon, lease: RwLock::new(None) }
    }

    /// What signs is known to be right until `end`; after that it is held back, until somebody looks again.
    pub(crate) fn hold_until(&self, end: Instant) {
        *self.lease.write().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Nobody else changes what signs.
    pub(crate) fn hold_for_good(&self) {
        *self.lease.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Is what signs known to be right? Otherwise nothing is signed.
    pub(crate) fn is_fresh(&self) -> bool {
        self.lease.read().unwrap_or_else(PoisonError::into_inner).is_none_or(|end| Instant::now() < end)
    }

    /// What signs now.
    pub(crate) fn current(&self) -> Arc<Signing> {
        Arc::clone(&self.read())
    }

    /// Signs a leaf.
    pub(crate) fn leaf(
        &self,
        key: &impl PublicKeyData,
        order: &Order<'_>,
        now: i64,
    ) -> Result<(SignedLeaf, Arc<Signing>), SignError> {
        let signing = self.read();
        let leaf = signing.intermediate.leaf(key, order, now)?;
        self.horizon.cover(leaf.not_after, now)?;
        // Last of all: a disk that hangs hangs above, and what was signed meanwhile stays here.
        if !self.is_fresh() {
            return Err(SignError::Stale);
        }
        Ok((leaf, Arc::clone(&signing)))
    }

    /// Signs claims as a JWT.
    pub(crate) fn jwt(&self, claims: &[u8], now: i64) -> Result<String, JwtError> {
        let signing = self.read();
        let (token, exp) = signing.jwt.sign(claims, signing.root.not_after, now)?;
        self.horizon.cover(exp, now).map_err(|error| JwtError::Failed(error.to_string()))?;
        if !self.is_fresh() {
            return Err(JwtError::Failed(SignError::Stale.to_string()));
        }
        Ok(token)
    }

    /// Waits until nothing is being signed, and holds everybody off.
    pub(crate) fn lift(&self) -> Lifted<'_> {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        Lifted { current, horizon: &self.horizon }
    }

    fn read(&self) -> RwLockReadGuard<'_, Arc<Signing>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lifted<'_> {
    /// Nothing that was signed until now is valid after this.
    pub(crate) fn signed_until(&self) -> i64 {
        self.horizon.until()
    }

    /// From now on `signing` signs.
    pub(crate) fn put_down(mut self, signing: Signing) {
        *self.current = Arc::new(signing);
    }
}
