//! A replica that signs beside the one that leads: it changes nothing of the state, reads it anew each second, and signs with
//! an intermediate of its own below the root that is active by then.
//!
//! Each replica has its intermediate signed by the root's key, which all of them read (or by whoever keeps it elsewhere):
//! asking the leader for it would be one more door, one more queue, and no more safety, since any of them leads tomorrow.
//! What it signs by must be fresh: once it could not read the state for some seconds (`pen`'s lease), or finds an older one
//! than it knew, it signs nothing. Knows not how the state changes (`rotation`).

use std::sync::Arc;

use douane_proto::svid::TrustBundle;
use tokio::sync::watch;

use super::{
    above::{Above, Elsewhere},
    change::{Changed, RotateError},
    horizon::Horizon,
    keep::{Birth, Keep, OpenError},
    pen::{Pen, Signing},
    rotation::{self, Rotation, Terms},
    sign::SignError,
    standing::Standing,
};
use crate::state::{Disk, StateFolder, StateLock};

/// Seconds; see `ask_again`.
const ASK_AGAIN: i64 = 15;

/// What a replica follows by.
pub(crate) struct Follower {
    pub(crate) standing: Standing,
    folder: StateFolder,
    terms: Terms,
    keep: Keep,
    horizon: Arc<Horizon>,
    elsewhere: Option<Elsewhere>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    // Whoever signs elsewhere and did not is not asked again before this, seconds since 1970.
    ask_again: i64,
}

/// Who may change the state.
pub(crate) enum Part {
    /// We do, as long as we hold the lock.
    Leads {
        /// The one writer.
        rotation: Box<Rotation>,
        // Held.
        _lock: StateLock,
    },
    /// Another does.
    Follows(Box<Follower>),
}

impl Part {
    /// The state as we know it.
    pub(crate) fn standing(&self) -> &Standing {
        match self {
            Self::Leads { rotation, .. } => &rotation.standing,
            Self::Follows(follower) => &follower.standing,
        }
    }

    /// What sidecars are told, now and later.
    pub(crate) fn bundle(&self) -> watch::Sender<Arc<TrustBundle>> {
        match self {
            Self::Leads { rotation, .. } => rotation.bundle.clone(),
            Self::Follows(follower) => follower.bundle.clone(),
        }
    }

    /// What changes the state, if we may.
    pub(crate) fn rotation(&mut self) -> Result<&mut Rotation, RotateError> {
        match self {
            Self::Leads { rotation, .. } => Ok(rotation),
            Self::Follows(_) => Err(RotateError::Follows),
        }
    }

    /// Takes the place of whoever led, if it is gone: the state is read as at a start.
    pub(crate) fn lead_if_nobody_does(&mut self, pen: &Pen, now: i64) -> Result<(), RotateError> {
        let Self::Follows(follower) = self else { return Ok(()) };
        let Some(lock) = follower.folder.try_lock().map_err(OpenError::from)? else { return Ok(()) };
        let rotation = follower.lead(pen, now)?;
        tracing::warn!("whoever led on the folder is gone: we lead now");
        *self = Self::Leads { rotation: Box::new(rotation), _lock: lock };
        Ok(())
    }
}

impl Follower {
    /// Reads the state that another leads by, and has an intermediate signed.
    pub(crate) fn open(
        folder: &StateFolder,
        terms: Terms,
        (keep, horizon): (Keep, Arc<Horizon>),
        elsewhere: Option<Elsewhere>,
        now: i64,
    ) -> Result<(Self, Signing), OpenError> {
        let standing = keep.read(&terms.trust_domain)?;
        let bundle = watch::Sender::new(Arc::new(standing.bundle()));
        let of = folder.clone();
        let follower = Self { standing, folder: of, terms, keep, horizon, elsewhere, bundle, ask_again: 0 };
        let failed = |source| OpenError::Signer { path: folder.authority(), source };
        let signing = follower.sign_anew(now).map_err(failed)?;
        Ok((follower, signing))
    }

    /// Reads the state; when it returns, `pen` signs by it. Says whether anything has changed.
    pub(crate) fn look(&mut self, pen: &Pen, now: i64) -> Result<Changed, RotateError> {
        let mut changed = Changed::No;
        let found = self.keep.generation()?;
        if found < self.standing.generation {
            // Restored from a backup: whoever starts anew makes of it what is to be made.
            return Err(OpenError::Overtaken { path: self.folder.authority(), found }.into());
        }
        if found > self.standing.generation {
            self.standing = self.keep.read(&self.terms.trust_domain)?;
            rotation::tell(&self.bundle, &self.standing);
            changed = Changed::Yes;
        }
        let current = pen.current();
        let must = !self.may_sign_on(&current, now);
        if must || (now >= self.ask_again && Self::is_due(&current, now)) {
            self.ask_again = now.saturating_add(ASK_AGAIN);
            let signing = match self.sign_anew(now) {
                // Whoever signs elsewhere is away, or has another root, which the leader brings in by its own way.
                Err(error) if !must => {
                    tracing::warn!(%error, "there is no new intermediate; the old one signs on");
                    return Ok(changed);
                }
                signing => signing?,
            };
            self.ask_again = 0;
            tracing::info!(
                intermediate = signing.intermediate.id,
                root = signing.root_id(),
                "a new intermediate signs"
            );
            pen.lift().put_down(signing);
            changed = Changed::Yes;
        }
        Ok(changed)
    }

    // Has it lived half its life, or would it be signed otherwise now?
    fn is_due(current: &Signing, now: i64) -> bool {
        let signer = &current.intermediate;
        // Below a root that ends soon a new one would end as early: nothing is won.
        let may_live_longer = signer.not_after < current.root_ends();
        (now >= signer.half_life() && may_live_longer) || current.has_changed()
    }

    // Below the active root, not tainted, valid.
    fn may_sign_on(&self, current: &Signing, now: i64) -> bool {
        let signer = &current.intermediate;
        let of_the_active = self.standing.active().is_some_and(|slot| slot.id == current.root_id());
        let is_spoilt = self.standing.spoilt.iter().any(|spoilt| spoilt.key_id == signer.key_id);
        of_the_active && !is_spoilt && now >= signer.not_before && now < signer.not_after
    }

    fn sign_anew(&self, now: i64) -> Result<Signing, SignError> {
        let active = self.standing.active().ok_or(SignError::Stored("no root signs"))?;
        let (domain, life) = (&self.terms.trust_domain, self.terms.intermediate_life);
        Signing::below(active, self.elsewhere.as_ref(), domain, (life, now))
    }

    fn lead(&self, pen: &Pen, now: i64) -> Result<Rotation, RotateError> {
        let found = self.keep.generation()?;
        if found < self.standing.generation {
            return Err(OpenError::Overtaken { path: self.folder.authority(), found }.into());
        }
        let standing = self.keep.take_up(&self.terms.trust_domain, now)?;
        let parts = (self.keep.clone(), Arc::clone(&self.horizon));
        rotation::tell(&self.bundle, &standing);
        let active = standing.active().ok_or(SignError::Stored("no root signs"))?;
        if active.id != pen.current().root_id() {
            let (domain, life) = (&self.terms.trust_domain, self.terms.intermediate_life);
            let signing = Signing::below(active, self.elsewhere.as_ref(), domain, (life, now))?;
            pen.lift().put_down(signing);
        }
        pen.hold_for_good();
        let (terms, elsewhere) = (self.terms.clone(), self.elsewhere.clone());
        Ok(Rotation::new(standing, terms, parts, elsewhere, self.bundle.clone()))
    }
}

/// Opens what we alone change, or makes it where there is no state at all.
pub(crate) fn lead(
    folder: &StateFolder,
    terms: Terms,
    (keep, disk): (Keep, Disk),
    elsewhere: Option<Elsewhere>,
    now: i64,
) -> Result<(Rotation, Pen), OpenError> {
    let failed = |source| OpenError::Signer { path: folder.authority(), source };
    let (domain, life) = (&terms.trust_domain, terms.intermediate_life);
    let fresh = elsewhere.as_ref().map(|it| it.fresh(domain, life, now)).transpose().map_err(failed)?;
    let given = fresh.as_ref().map(|fresh| fresh.root.as_slice());
    let birth = Birth { trust_domain: domain, root_life: terms.root_life, now, given };
    let standing = keep.revive(keep.open(&birth)?, &birth)?;
    let horizon = Arc::new(Horizon::open(folder, disk, now)?);
    let active = standing.active().ok_or(SignError::Stored("no root signs")).map_err(failed)?;
    let signing = match (fresh, &elsewhere) {
        (Some(fresh), Some(elsewhere)) if fresh.root == active.certificate => {
            Signing::with(active, Above::Elsewhere(elsewhere.clone()), fresh)
        }
        _ => Signing::below(active, elsewhere.as_ref(), domain, (life, now)),
    };
    let pen = Pen::new(signing.map_err(failed)?, Arc::clone(&horizon));
    let bundle = watch::Sender::new(Arc::new(standing.bundle()));
    Ok((Rotation::new(standing, terms, (keep, horizon), elsewhere, bundle), pen))
}
