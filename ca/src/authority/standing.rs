//! Where each root stands: the whole state of the authority as a value, and what each step makes of it.
//!
//! Pure. What sidecars are told (the bundle) follows from it, and its sequence rises by itself with every change of the
//! content. Knows not when a step is due (`plan`), nor how the state is kept (`keep`).

use std::sync::Arc;

use douane_proto::{
    id::TrustDomain,
    svid::{JwtKey, TrustBundle, subject_key_id},
};
use zeroize::Zeroizing;

use super::{
    jwt,
    sign::{self, SignError},
};

/// Sidecars take no bundle with many more; where roots live for minutes, what runs under older ones ends.
const MOST_RETIRED: usize = 8;

/// How far a root has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Stored; nobody knows it.
    Prepared,
    /// In the bundle; signs nothing.
    Published,
    /// Signs.
    Active,
    /// In the bundle, until no certificate below it is valid any more.
    Retiring,
}

/// The private keys of a root.
pub(crate) struct Keys {
    /// PKCS#8 DER; signs certificates. None: it lies elsewhere.
    pub(crate) x509: Option<Zeroizing<Vec<u8>>>,
    /// PKCS#8 DER; signs JWT-SVIDs.
    pub(crate) jwt: Zeroizing<Vec<u8>>,
}

/// A root with its keys.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Unique; in its subject, and the `kid` of its JWT key.
    pub(crate) id: String,
    pub(crate) phase: Phase,
    /// When it entered the phase, seconds since 1970.
    pub(crate) since: i64,
    /// Is it to sign no more, as soon as there is another?
    pub(crate) tainted: bool,
    /// Does it become active whoever lags, because somebody said so?
    pub(crate) forced: bool,
    /// The sequence of the first bundle that held it.
    pub(crate) published_at: Option<u64>,
    /// While it retires: nothing below it is valid after this, seconds since 1970.
    pub(crate) leaves_until: Option<i64>,
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// Subject key identifier of the certificate.
    pub(crate) key_id: Vec<u8>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// SubjectPublicKeyInfo of the JWT key, DER.
    pub(crate) jwt_spki: Vec<u8>,
    pub(crate) keys: Arc<Keys>,
}

/// An intermediate that must sign no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spoilt {
    pub(crate) id: String,
    pub(crate) key_id: Vec<u8>,
    /// Tainted, or refused, since then.
    pub(crate) since: i64,
    /// The end of its own life.
    pub(crate) until: i64,
    /// Does it vouch for nobody any more?
    pub(crate) refused: bool,
}

/// A root that has left the bundle in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) id: String,
    pub(crate) key_id: Vec<u8>,
    /// What it vouched for may run until then, seconds since 1970.
    pub(crate) until: i64,
}

/// The state.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) trust_domain: TrustDomain,
    /// Counts states, so that an older one is known as such.
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) spoilt: Vec<Spoilt>,
    /// The newest last.
    pub(crate) retired: Vec<Retired>,
}

impl Phase {
    /// As a human writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Published => "published",
            Self::Active => "active",
            Self::Retiring => "retiring",
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Slot {
    /// A root that nobody knows yet.
    pub(crate) fn new(id: String, certificate: Vec<u8>, keys: Keys, now: i64) -> Result<Self, SignError> {
        let key_id =
            subject_key_id(&certificate).ok_or(SignError::Stored("it has no subject key identifier"))?;
        let (not_before, not_after) = sign::validity(&certificate)?;
        Ok(Self {
            id,
            phase: Phase::Prepared,
            since: now,
            tainted: false,
            forced: false,
            published_at: None,
            leaves_until: None,
            certificate,
            key_id,
            not_before,
            not_after,
            jwt_spki: jwt::public_key(&keys.jwt)?,
            keys: Arc::new(keys),
        })
    }

    /// Do sidecars trust it?
    pub(crate) fn is_public(&self) -> bool {
        self.phase != Phase::Prepared
    }
}

impl Standing {
    /// The first state, of one root that signs at once: nobody trusts another.
    pub(crate) fn first(trust_domain: TrustDomain, slot: Slot, epoch: u64) -> Self {
        let slot = Slot { phase: Phase::Active, published_at: Some(1), ..slot };
        let (slots, spoilt, retired) = (vec![slot], Vec::new(), Vec::new());
        Self { trust_domain, generation: 1, epoch, sequence: 1, slots, spoilt, retired }
    }

    /// The root that signs.
    pub(crate) fn active(&self) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.phase == Phase::Active)
    }

    /// The root with this id.
    pub(crate) fn slot(&self, id: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    /// What sidecars are told.
    pub(crate) fn bundle(&self) -> TrustBundle {
        let public = || self.slots.iter().filter(|slot| slot.is_public());
        // Renewal helps only once another root signs.
        let replaced = public().filter(|slot| slot.tainted && slot.phase == Phase::Retiring);
        let spoilt = |refused| {
            self.spoilt.iter().filter(move |it| it.refused == refused).map(|spoilt| spoilt.key_id.clone())
        };
        TrustBundle {
            trust_domain: self.trust_domain.clone(),
            roots: public().map(|slot| slot.certificate.clone()).collect(),
            epoch: self.epoch,
            sequence: self.sequence,
            jwt_keys: public()
                .map(|slot| JwtKey { key_id: slot.id.clone(), spki_der: slot.jwt_spki.clone() })
                .collect(),
            tainted_keys: replaced.map(|slot| slot.key_id.clone()).chain(spoilt(false)).collect(),
            refused_keys: spoilt(true).collect(),
            retired_keys: self.retired.iter().map(|retired| retired.key_id.clone()).collect(),
        }
    }

    /// With a new root, which nobody knows.
    pub(crate) fn with_prepared(&self, slot: Slot) -> Self {
        self.changed(|next| next.slots.push(Slot { phase: Phase::Prepared, ..slot }))
    }

    /// With `id` in the bundle.
    pub(crate) fn with_published(&self, id: &str, now: i64) -> Self {
        let mut next = self.changed(|next| next.enter(id, Phase::Published, now));
        let sequence = next.sequence;
        next.slots
            .iter_mut()
            .filter(|slot| slot.id == id)
            .for_each(|slot| slot.published_at = Some(sequence));
        next
    }

    /// With `id` signing, and whoever signed so far retiring; nothing that is signed is valid after `signed_until`.
    pub(crate) fn with_active(&self, id: &str, signed_until: i64, now: i64) -> Self {
        self.changed(|next| {
            for slot in next.slots.iter_mut().filter(|slot| slot.phase == Phase::Active) {
                slot.phase = Phase::Retiring;
                slot.since = now;
                slot.leaves_until = Some(signed_until.min(slot.not_after));
            }
            next.enter(id, Phase::Active, now);
        })
    }

    /// Without `id`.
    pub(crate) fn without(&self, id: &str) -> Self {
        self.changed(|next| next.slots.retain(|slot| slot.id != id))
    }

    /// Without `id`, which leaves in order: what it vouched for may run until `until`.
    pub(crate) fn with_retired(&self, id: &str, until: i64) -> Self {
        self.changed(|next| {
            let leaving = next.slots.iter().filter(|slot| slot.id == id);
            let leaving =
                leaving.map(|slot| Retired { id: slot.id.clone(), key_id: slot.key_id.clone(), until });
            next.retired.extend(leaving.collect::<Vec<_>>());
            next.retired.drain(..next.retired.len().saturating_sub(MOST_RETIRED));
            next.slots.retain(|slot| slot.id != id);
        })
    }

    /// Without a word on the root `id` that has left.
    pub(crate) fn without_retired(&self, id: &str) -> Self {
        self.changed(|next| next.retired.retain(|retired| retired.id != id))
    }

    /// With a mark on the root `id` that it is to be replaced.
    pub(crate) fn with_tainted(&self, id: &str) -> Self {
        self.changed(|next| {
            next.slots.iter_mut().filter(|slot| slot.id == id).for_each(|slot| slot.tainted = true);
        })
    }

    /// With an order that the root `id` signs as soon as it can, whoever lags.
    pub(crate) fn with_forced(&self, id: &str) -> Self {
        self.changed(|next| {
            next.slots.iter_mut().filter(|slot| slot.id == id).for_each(|slot| slot.forced = true);
        })
    }

    /// With an intermediate that signs no more.
    pub(crate) fn with_spoilt(&self, spoilt: Spoilt) -> Self {
        self.changed(|next| next.spoilt.push(spoilt))
    }

    /// With an intermediate that vouches for nobody any more.
    pub(crate) fn with_refused(&self, id: &str, now: i64) -> Self {
        self.changed(|next| {
            for spoilt in next.spoilt.iter_mut().filter(|spoilt| spoilt.id == id) {
                spoilt.refused = true;
                spoilt.since = now;
            }
        })
    }

    /// Without a word on the intermediate `id`.
    pub(crate) fn without_spoilt(&self, id: &str) -> Self {
        self.changed(|next| next.spoilt.retain(|spoilt| spoilt.id != id))
    }

    /// As the beginning of another history, of which nobody has heard.
    pub(crate) fn in_epoch(&self, epoch: u64) -> Self {
        let mut next = self.changed(|_| {});
        (next.epoch, next.sequence) = (epoch, 1);
        next.slots.iter_mut().filter(|slot| slot.is_public()).for_each(|slot| slot.published_at = Some(1));
        next
    }

    fn enter(&mut self, id: &str, phase: Phase, now: i64) {
        for slot in self.slots.iter_mut().filter(|slot| slot.id == id) {
            slot.phase = phase;
            slot.since = now;
        }
    }

    // The one way to another state: no change of what sidecars are told goes without a higher sequence.
    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next.generation += 1;
        if next.bundle() != self.bundle() {
            next.sequence += 1;
        }
        next
    }
}
