//! Rotation at work: what `plan` decides is made durable (`keep`), and then takes effect. What an operator asks for goes
//! the same way.
//!
//! A step that cannot be stored did not happen, and is tried again. Knows neither requests nor streams.

use std::{sync::Arc, time::Duration};

use douane_proto::{id::TrustDomain, svid::TrustBundle};
use tokio::sync::watch;

use super::{
    above::Elsewhere,
    change::{Change, Changed, Force, MOST_AT_ONCE, RotateError},
    horizon::Horizon,
    keep::{Birth, Keep, new_slot},
    pen::{Pen, Signing},
    plan::{self, Facts, Maker, Next, Pace, Step, Waiting},
    sign::SignError,
    standing::{Phase, Slot, Spoilt, Standing},
};

/// A loop of steps would be a fault of ours; a whole rotation has four.
const MOST_STEPS: usize = 16;
/// An error is read by a human: so many names stand in it.
const MOST_NAMES: usize = 10;
/// Whoever signs elsewhere and did not is asked again after this: seconds.
const ASK_AGAIN: i64 = 15;
/// Seconds that streams may run, by what sidecars are set to by default: so long what a root vouched for may outlive it.
const STREAMS_RUN: i64 = 24 * 3600;
/// Seconds that a certificate may live at most.
const LONGEST_LEAF: i64 = 24 * 3600;
/// Seconds that clocks of replicas may differ: as much as certificates are backdated for those of sidecars.
const CLOCKS_DIFFER: i64 = 60;
/// A replica signs for so long by what it has read, and no longer: so whoever leads knows when all go by a new state.
pub const FRESH_FOR: Duration = Duration::from_secs(10);
/// SHA-256, cut to 160 bits (RFC 7093 2), as key identifiers are.
const KEY_ID_BYTES: usize = 20;

/// The lives of an authority's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose identities are signed.
    pub trust_domain: TrustDomain,
    /// How long leaves live unless asked otherwise.
    pub leaf_life: Duration,
    /// How long an intermediate lives; it is replaced at half of that.
    pub intermediate_life: Duration,
    /// How long a root lives; another is prepared at half of that.
    pub root_life: Duration,
    /// From the publication of a root to its first signature, at least.
    pub root_lead: Duration,
}

/// What is left to whoever led.
pub(crate) struct Left {
    pub(crate) standing: Standing,
    pub(crate) terms: Terms,
    pub(crate) parts: (Keep, Arc<Horizon>),
    pub(crate) elsewhere: Option<Elsewhere>,
    pub(crate) bundle: Told,
}

/// What sidecars are told of the state.
pub(crate) type Told = watch::Sender<Arc<TrustBundle>>;

/// An intermediate that this control plane has signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) id: String,
    pub(crate) key_id: Vec<u8>,
    pub(crate) not_after: i64,
}

/// The one writer of the state.
pub(crate) struct Rotation {
    pub(crate) standing: Standing,
    pub(crate) terms: Terms,
    /// What the next steps wait for, as of the last look.
    pub(crate) waiting: Vec<Waiting>,
    /// Intermediates before the current one.
    pub(crate) past: Vec<Past>,
    /// What has changed and was not written down yet.
    pub(crate) changes: Vec<Change>,
    keep: Keep,
    horizon: Arc<Horizon>,
    elsewhere: Option<Elsewhere>,
    // What sidecars are told.
    pub(crate) bundle: Told,
    // Whoever signs elsewhere is not asked again before this.
    ask_again: i64,
    // A change could not be stored, or only in part: what lies on the disk may be what was or what should be.
    doubtful: bool,
}

impl Rotation {
    pub(crate) fn new(
        standing: Standing,
        terms: Terms,
        (keep, horizon): (Keep, Arc<Horizon>),
        elsewhere: Option<Elsewhere>,
        bundle: Told,
    ) -> Self {
        Self {
            standing,
            terms,
            waiting: Vec::new(),
            past: Vec::new(),
            changes: Vec::new(),
            keep,
            horizon,
            elsewhere,
            bundle,
            ask_again: 0,
            doubtful: false,
        }
    }

    /// Another leads: what is left is to follow. What was not stored for sure is read from it.
    pub(crate) fn step_down(&self) -> Left {
        self.horizon.release();
        Left {
            standing: self.standing.clone(),
            terms: self.terms.clone(),
            parts: (self.keep.clone(), Arc::clone(&self.horizon)),
            elsewhere: self.elsewhere.clone(),
            bundle: self.bundle.clone(),
        }
    }

    /// Does what is due; everybody goes by the new state when it returns. Says whether anything has changed.
    pub(crate) fn advance(&mut self, pen: &Pen, facts: &Facts, now: i64) -> Result<Changed, RotateError> {
        self.keep.refuse_overtaken()?;
        if self.doubtful {
            self.store_again()?;
        }
        // Of an earlier step, perhaps, whose bundle could not be written.
        self.keep.publish(&self.standing)?;
        // Whoever signs elsewhere may be away: all else goes on.
        let renewed = self.renew_intermediate(pen, now);
        let mut changed = Changed::No;
        for _ in 0..MOST_STEPS {
            match plan::next(&self.standing, facts, now, self.pace()) {
                Next::Do(step) => {
                    self.take(&step, pen, facts, now)?;
                    changed = Changed::Yes;
                }
                Next::Wait(waiting) => {
                    self.waiting = waiting;
                    break;
                }
            }
        }
        if renewed? == Changed::Yes {
            changed = Changed::Yes;
        }
        Ok(changed)
    }

    /// Begins to replace the root; the way is the same as of one that is due.
    pub(crate) fn rotate_root(&mut self, force: Force, now: i64) -> Result<String, RotateError> {
        let coming =
            self.standing.slots.iter().find(|slot| matches!(slot.phase, Phase::Prepared | Phase::Published));
        let id = match coming {
            Some(slot) if force == Force::No => {
                let (id, phase) = (slot.id.clone(), slot.phase.name());
                return Err(RotateError::OnItsWay { id, phase, lagging: self.waited_for() });
            }
            Some(slot) => slot.id.clone(),
            None if self.elsewhere.is_some() => return Err(RotateError::NotOurs),
            None => self.prepare(now)?,
        };
        if force == Force::Yes {
            tracing::warn!(
                root = id,
                "forced: the new root signs at once, whoever does not know it yet is cut off"
            );
            self.commit(self.standing.with_forced(&id))?;
            self.note(&id, "forced: it signs whoever lags");
        }
        Ok(id)
    }

    /// Replaces the intermediate.
    pub(crate) fn rotate_intermediate(&mut self, pen: &Pen, now: i64) -> Result<String, RotateError> {
        let fresh = pen.current().renewed(&self.terms.trust_domain, self.terms.intermediate_life, now)?;
        let id = fresh.intermediate.id.clone();
        self.replace(pen, fresh, now);
        Ok(id)
    }

    /// Marks an authority as one that must sign no more, and puts another in its place.
    pub(crate) fn taint(&mut self, name: &str, pen: &Pen, now: i64) -> Result<(), RotateError> {
        if let Some(slot) = self.standing.slot(name) {
            if slot.tainted {
                return Err(RotateError::Tainted(name.to_owned()));
            }
            tracing::warn!(
                root = name,
                "tainted: another root takes its place, and everybody below it renews"
            );
            self.commit(self.standing.with_tainted(name))?;
            self.note(name, "a root is tainted");
            return Ok(());
        }
        if self.standing.retired.iter().any(|retired| retired.id == name) {
            tracing::warn!(root = name, "tainted after it has left: what it vouched for ends");
            self.commit(self.standing.without_retired(name))?;
            self.note(name, "a root that has left is tainted");
            return Ok(());
        }
        let spoilt =
            self.find_intermediate(name, pen, now).ok_or_else(|| RotateError::Unknown(name.to_owned()))?;
        if self.standing.spoilt.iter().any(|known| known.key_id == spoilt.key_id) {
            return Err(RotateError::Tainted(name.to_owned()));
        }
        if self.standing.spoilt.len() >= MOST_AT_ONCE {
            return Err(RotateError::TooMany);
        }
        // First another: whoever renews must not get the same again.
        if pen.current().intermediate.key_id == spoilt.key_id {
            self.rotate_intermediate(pen, now)?;
        }
        tracing::warn!(intermediate = spoilt.id, "tainted: it signs no more, and everybody below it renews");
        let id = spoilt.id.clone();
        self.commit(self.standing.with_spoilt(spoilt))?;
        self.note(&id, "an intermediate is tainted");
        Ok(())
    }

    // In words, for an error.
    fn waited_for(&self) -> String {
        let lagging = self.waiting.iter().filter(|waiting| matches!(waiting.step, Step::Activate(_)));
        let names: Vec<&str> =
            lagging.flat_map(|waiting| &waiting.laggards).map(|holder| holder.name.as_str()).collect();
        match names.as_slice() {
            [] => String::new(),
            few if few.len() <= MOST_NAMES => format!(" and waits for {}", few.join(", ")),
            many => {
                let shown: Vec<&str> = many.iter().take(MOST_NAMES).copied().collect();
                format!(" and waits for {} sidecars, such as {}", names.len(), shown.join(", "))
            }
        }
    }

    fn find_intermediate(&self, name: &str, pen: &Pen, now: i64) -> Option<Spoilt> {
        let current = pen.current();
        let of = |id: &str, key_id: &[u8], until: i64| Spoilt {
            id: id.to_owned(),
            key_id: key_id.to_vec(),
            since: now,
            until,
            refused: false,
        };
        let signer = &current.intermediate;
        if signer.id == name {
            return Some(of(name, &signer.key_id, signer.not_after));
        }
        if let Some(past) = self.past.iter().find(|past| past.id == name) {
            return Some(of(name, &past.key_id, past.not_after));
        }
        // Of another control plane, or of one that is gone.
        let key_id = crate::hex::decode(name).filter(|id| id.len() == KEY_ID_BYTES)?;
        let longest = i64::try_from(self.terms.intermediate_life.as_secs()).unwrap_or(i64::MAX);
        Some(of(name, &key_id, now.saturating_add(longest)))
    }

    // At half its life, or when the clock says that it is not valid yet, or whoever signs it signs otherwise now.
    fn renew_intermediate(&mut self, pen: &Pen, now: i64) -> Result<Changed, RotateError> {
        let current = pen.current();
        let signer = &current.intermediate;
        let in_time = now < signer.half_life() && now >= signer.not_before;
        let signs_otherwise = current.has_changed();
        if (in_time && !signs_otherwise && !self.is_owed()) || now < self.ask_again {
            return Ok(Changed::No);
        }
        if self.elsewhere.is_some() {
            self.ask_again = now.saturating_add(ASK_AGAIN);
        }
        let (domain, life) = (self.terms.trust_domain.clone(), self.terms.intermediate_life);
        if self.is_owed() {
            // From a root whose key we keep to one whose key lies elsewhere.
            let Some(elsewhere) = &self.elsewhere else { return Ok(Changed::No) };
            let root = elsewhere.fresh(&domain, life, now)?.root;
            return self.offer(&root, now);
        }
        let fresh = match current.renewed(&domain, life, now) {
            Err(SignError::OtherRoot(root)) => return self.offer(&root, now),
            fresh => fresh?,
        };
        // Below a root that ends soon a new one would end as early: nothing is won.
        let is_valid = now >= signer.not_before && now < signer.not_after;
        if fresh.intermediate.not_after <= signer.not_after && is_valid && !signs_otherwise {
            return Ok(Changed::No);
        }
        self.ask_again = 0;
        self.replace(pen, fresh, now);
        Ok(Changed::Yes)
    }

    // Does a root that we keep still sign, although its successor lies elsewhere?
    fn is_owed(&self) -> bool {
        let kept = self.standing.active().is_some_and(|slot| slot.keys.x509.is_some());
        kept && self.elsewhere.is_some() && self.coming().is_none()
    }

    fn coming(&self) -> Option<&Slot> {
        self.standing.slots.iter().find(|slot| matches!(slot.phase, Phase::Prepared | Phase::Published))
    }

    // Somebody else's root becomes ours by the same way as one that we make.
    fn offer(&mut self, root: &[u8], now: i64) -> Result<Changed, RotateError> {
        if self.standing.slots.iter().any(|slot| slot.certificate == root && slot.phase != Phase::Retiring) {
            return Ok(Changed::No);
        }
        if let Some(overtaken) = self.coming().map(|slot| slot.id.clone()) {
            self.commit(self.standing.without(&overtaken))?;
        }
        self.prepare_with(Some(root), now)?;
        Ok(Changed::Yes)
    }

    fn replace(&mut self, pen: &Pen, fresh: Signing, now: i64) {
        let before = pen.current();
        let (old, new) = (&before.intermediate, &fresh.intermediate);
        tracing::info!(
            intermediate = new.id,
            replaces = old.id,
            ends = %moment(new.not_after),
            "a new intermediate signs"
        );
        self.past.retain(|past| past.not_after > now);
        self.past.push(Past { id: old.id.clone(), key_id: old.key_id.clone(), not_after: old.not_after });
        self.note(&fresh.intermediate.id, "a new intermediate signs");
        pen.lift().put_down(fresh);
    }

    fn prepare(&mut self, now: i64) -> Result<String, RotateError> {
        self.prepare_with(None, now)
    }

    fn prepare_with(&mut self, given: Option<&[u8]>, now: i64) -> Result<String, RotateError> {
        if self.standing.slots.len() >= MOST_AT_ONCE {
            return Err(RotateError::TooMany);
        }
        let terms = &self.terms;
        let birth = Birth { trust_domain: &terms.trust_domain, root_life: terms.root_life, now, given };
        let slot = new_slot(&birth)?;
        let id = slot.id.clone();
        let ends = moment(slot.not_after);
        self.commit(self.standing.with_prepared(slot))?;
        tracing::info!(root = id, %ends, "a new root is prepared");
        self.note(&id, "a root is prepared");
        Ok(id)
    }

    fn take(&mut self, step: &Step, pen: &Pen, facts: &Facts, now: i64) -> Result<(), RotateError> {
        match step {
            Step::BeginEpoch(epoch) => {
                tracing::error!(
                    epoch,
                    "a sidecar holds a newer bundle than ours: the state was restored from a backup; a new history begins"
                );
                self.commit(self.standing.in_epoch(*epoch))?;
                self.note("bundle", "a new history of the bundle begins: the state was restored");
                Ok(())
            }
            Step::Prepare => self.prepare(now).map(drop),
            Step::Publish(id) => {
                self.commit(self.standing.with_published(id, now))?;
                tracing::info!(
                    root = id,
                    sequence = self.standing.sequence,
                    "a new root is published; it signs once everybody knows it"
                );
                self.note(id, "a root is published");
                Ok(())
            }
            Step::Activate(id) => self.activate(id, pen, facts, now),
            Step::Remove(id) => {
                let in_order = |slot: &Slot| slot.phase == Phase::Retiring && !slot.tainted;
                let next = match self.standing.slot(id) {
                    Some(slot) if in_order(slot) => {
                        self.standing.with_retired(id, now.saturating_add(STREAMS_RUN))
                    }
                    _ => self.standing.without(id),
                };
                self.commit(next)?;
                tracing::info!(root = id, sequence = self.standing.sequence, "a root has left the bundle");
                self.note(id, "a root has left the bundle");
                Ok(())
            }
            Step::Refuse(id) => {
                self.commit(self.standing.with_refused(id, now))?;
                tracing::warn!(intermediate = id, "a tainted intermediate is refused from now on");
                self.note(id, "a tainted intermediate is refused");
                Ok(())
            }
            Step::Forget(id) => self.commit(self.standing.without_spoilt(id)),
            Step::Bury(id) => self.commit(self.standing.without_retired(id)),
        }
    }

    fn activate(&mut self, id: &str, pen: &Pen, facts: &Facts, now: i64) -> Result<(), RotateError> {
        let Some(slot) = self.standing.slot(id) else { return Ok(()) };
        let lagging = plan::strangers_to(slot, &self.standing, facts, now);
        let (domain, life) = (&self.terms.trust_domain, self.terms.intermediate_life);
        let signing = Signing::below(slot, self.elsewhere.as_ref(), domain, (life, now))?;
        let before = pen.current();
        // Nothing is signed while the end of what was signed is written down.
        let lifted = pen.lift();
        let signed_until = lifted.signed_until().max(now).max(self.others_sign_until(now));
        let next = self.standing.with_active(id, signed_until, now);
        self.commit(next)?;
        lifted.put_down(signing);
        self.note(id, "a root signs");
        let old = &before.intermediate;
        self.past.push(Past { id: old.id.clone(), key_id: old.key_id.clone(), not_after: old.not_after });
        let cut_off: Vec<&str> = lagging.iter().take(10).map(|holder| holder.name.as_str()).collect();
        if cut_off.is_empty() {
            tracing::info!(root = id, old_until = %moment(signed_until), "a new root signs; the old one retires");
        } else {
            tracing::warn!(
                root = id,
                lagging = lagging.len(),
                names = cut_off.join(", "),
                "a new root signs although some may not know it"
            );
        }
        Ok(())
    }

    // Other replicas sign below the old root until they have read of the new one; each certificate may live for a day, by their
    // clock.
    fn others_sign_until(&self, now: i64) -> i64 {
        let fresh = i64::try_from(FRESH_FOR.as_secs()).unwrap_or(0);
        if self.keep.is_shared() { now.saturating_add(fresh + LONGEST_LEAF + CLOCKS_DIFFER) } else { now }
    }

    fn note(&mut self, authority: &str, what: &'static str) {
        self.changes.push(Change { authority: authority.to_owned(), what });
    }

    // The one way to another state: first the disk, then everybody.
    fn commit(&mut self, next: Standing) -> Result<(), RotateError> {
        if self.doubtful {
            self.store_again()?;
        }
        self.keep.store(&next).inspect_err(|_| {
            // Perhaps the disk has it: the end of what may be signed is then as it says.
            self.doubtful = true;
            self.horizon.hold();
        })?;
        self.standing = next;
        tell(&self.bundle, &self.standing);
        self.keep.publish(&self.standing)?;
        self.keep.in_effect();
        Ok(())
    }

    fn store_again(&mut self) -> Result<(), RotateError> {
        self.keep.store(&self.standing)?;
        self.doubtful = false;
        self.horizon.release();
        Ok(())
    }

    fn pace(&self) -> Pace {
        let makes = if self.elsewhere.is_some() { Maker::Others } else { Maker::Us };
        Pace { lead: i64::try_from(self.terms.root_lead.as_secs()).unwrap_or(i64::MAX), makes }
    }
}

/// What follows from `standing` is told to sidecars. Always before anything is signed by it: a certificate goes with the
/// bundle of its moment.
pub(crate) fn tell(bundle: &watch::Sender<Arc<TrustBundle>>, standing: &Standing) {
    let next = standing.bundle();
    bundle.send_if_modified(|told| {
        let is_new = **told != next;
        if is_new {
            *told = Arc::new(next);
        }
        is_new
    });
}

fn moment(unix: i64) -> humantime::Rfc3339Timestamp {
    let since = Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since)
}
