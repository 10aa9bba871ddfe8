//! A replica that signs beside the one that leads: it changes nothing of the state, reads it anew each second, and signs with
//! an intermediate of its own below the root that is active by then.
//!
//! Each replica has its intermediate signed by the root's key, which all of them read (or by whoever keeps it elsewhere):
//! asking the leader for it would be one more door, one more queue, and no more safety, since any of them leads tomorrow.
//! What it signs by must be fresh: once it could not read the state for some seconds (`pen`'s lease), or finds an older one
//! than it knew, it signs nothing. Knows not how the state changes (`rotation`).

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    above::{Above, Elsewhere},
    change::{Changed, RotateError},
    horizon::Horizon,
    keep::{Birth, Keep, OpenError},
    pen::{Pen, Signing},
    rotation::{self, Left, Rotation, Terms, Told},
    sign::SignError,
    standing::Standing,
};
use crate::state::{self, Disk, StateError, StateFolder, StateLock};

/// Seconds; see `ask_again`.
const ASK_AGAIN: i64 = 15;

/// What a replica follows by.
pub(crate) struct Follower {
    pub(crate) standing: Standing,
    terms: Terms,
    keep: Keep,
    horizon: Arc<Horizon>,
    elsewhere: Option<Elsewhere>,
    bundle: Told,
    // Whoever signs elsewhere and did not is not asked again before this, seconds since 1970.
    ask_again: i64,
}

/// Who may change the state.
pub(crate) enum Part {
    /// We do, as long as we hold the lock.
    Leads {
        /// The one writer.
        rotation: Box<Rotation>,
        /// By what right; held.
        #[expect(dead_code, reason = "a lock holds as long as it lives")]
        by: Right,
    },
    /// Another does.
    Follows(Box<Follower>),
}

/// By what right the state is changed.
pub(crate) enum Right {
    /// Whoever holds the lock of the folder; held.
    Lock { _lock: StateLock },
    /// Whoever holds the lease of the shelf.
    Lease,
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
    pub(crate) fn bundle(&self) -> Told {
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

    /// Takes the place of whoever led, if it is gone: the state is read as at a start. Steps down where another leads.
    pub(crate) fn lead_if_nobody_does(
        &mut self,
        folder: &StateFolder,
        pen: &Pen,
        now: i64,
    ) -> Result<(), RotateError> {
        let failed = |source| OpenError::from(state::failed("ask who leads on", &folder.authority())(source));
        let right = match (folder.shelf(), &*self) {
            (Some(shelf), _) => shelf.lead().map_err(failed)?.then_some(Right::Lease),
            (None, Self::Leads { .. }) => return Ok(()),
            (None, Self::Follows(_)) => {
                folder.try_lock().map_err(OpenError::from)?.map(|lock| Right::Lock { _lock: lock })
            }
        };
        match (&mut *self, right) {
            (Self::Follows(follower), Some(by)) => {
                let rotation = Box::new(follower.lead(pen, now)?);
                tracing::warn!("whoever led is gone: we lead now");
                *self = Self::Leads { rotation, by };
            }
            (Self::Leads { rotation, .. }, None) => {
                tracing::warn!("another replica leads now: we follow it");
                let follower = Box::new(Follower::after(rotation));
                *self = Self::Follows(follower);
            }
            _ => {}
        }
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
        keep.publish_own(&standing)?;
        let follower = Self { standing, terms, keep, horizon, elsewhere, bundle, ask_again: 0 };
        let failed = |source| OpenError::Signer { path: folder.authority(), source };
        let signing = follower.sign_anew(now).map_err(failed)?;
        Ok((follower, signing))
    }

    // Who led goes on as one who is led.
    fn after(rotation: &Rotation) -> Self {
        let Left { standing, terms, parts: (keep, horizon), elsewhere, bundle } = rotation.step_down();
        Self { standing, terms, keep, horizon, elsewhere, bundle, ask_again: 0 }
    }

    /// Reads the state; when it returns, `pen` signs by it. Says whether anything has changed.
    pub(crate) fn look(&mut self, pen: &Pen, now: i64) -> Result<Changed, RotateError> {
        let mut changed = Changed::No;
        let found = self.keep.generation()?;
        if found < self.standing.generation {
            // Restored from a backup: whoever starts anew makes of it what is to be made.
            return Err(self.keep.overtaken(found).into());
        }
        if found > self.standing.generation {
            self.standing = self.keep.read(&self.terms.trust_domain)?;
            rotation::tell(&self.bundle, &self.standing);
            changed = Changed::Yes;
        }
        // Perhaps a write of before has failed; where nothing has changed it costs nothing.
        self.keep.publish_own(&self.standing)?;
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
            return Err(self.keep.overtaken(found).into());
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

/// May we change the state, from the start? And the lock of a folder that is ours alone while the state lies elsewhere.
pub(crate) fn right_to_lead(
    folder: &StateFolder,
    keep: &Keep,
) -> Result<(Option<Right>, Option<StateLock>), OpenError> {
    let Some(shelf) = folder.shelf() else {
        let lock = match folder.lock() {
            // Whoever leads may still be about to make the state.
            Err(StateError::Locked(_))
                if folder.replica().is_some() && folder.is_shared()? && folder.authority().is_file() =>
            {
                None
            }
            lock => Some(lock?),
        };
        return Ok((lock.map(|lock| Right::Lock { _lock: lock }), None));
    };
    let own = folder.lock()?;
    let leads = shelf.lead().map_err(state::failed("ask who leads on", &folder.authority()))?;
    if !leads && !keep.is_made()? {
        return Err(StateError::Locked(folder.authority()).into());
    }
    Ok((leads.then_some(Right::Lease), Some(own)))
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
