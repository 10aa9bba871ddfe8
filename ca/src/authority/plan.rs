//! The life of a root, as one pure function: where each root stands, what is known of the sidecars and the time make the
//! next step, or say what is waited for.
//!
//! `prepared -> published -> active -> retiring -> removed`: published before it signs anything, known to everybody
//! before it is active, and removed only when nobody can hold a certificate below it any more. Knows neither disk nor
//! keys (`keep` makes a step durable, `mod` lets it take effect).

use super::standing::{Phase, Retired, Slot, Spoilt, Standing};
use crate::holders::Holder;

/// A root is prepared when this share of its life is over.
const PREPARE_AT: f64 = 0.5;
/// A root that is to be replaced because it ends soon is replaced in the last tenth of its life, whoever lags: they would
/// be cut off by its end as well, and all others with them.
const LAST_CALL: f64 = 0.9;
/// Sidecars take over a bundle within seconds. Whoever has not by then does not keep a tainted root in use.
const TAINTED_PATIENCE: i64 = 30;
/// And whoever has not renewed by then is cut off with it.
const TAINTED_LIMIT: i64 = 60;

/// How the life of roots is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Seconds from the publication of a root to its first signature, at least: whoever fetches bundles does so in this.
    pub(crate) lead: i64,
    /// Who makes roots.
    pub(crate) makes: Maker,
}

/// Who makes the next root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// We do.
    Us,
    /// Somebody else, when they please.
    Others,
}

/// What is known of the world outside of the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Whoever holds a certificate, or is connected.
    pub(crate) holders: Vec<Holder>,
    /// The highest place in a bundle's history that a sidecar says it holds.
    pub(crate) highest_seen: (u64, u64),
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sidecars hold a bundle that we have not published: ours is an older state, restored. Its history begins anew.
    BeginEpoch(u64),
    /// Make a root and store it.
    Prepare,
    /// Put it into the bundle.
    Publish(String),
    /// Let it sign, and what signed so far retire.
    Activate(String),
    /// Take it out of the bundle.
    Remove(String),
    /// Let a tainted intermediate vouch for nobody any more.
    Refuse(String),
    /// An intermediate has ended; nobody needs to be told of it.
    Forget(String),
    /// Nothing runs any more that a root vouched for which has left.
    Bury(String),
}

/// What is waited for before a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The step.
    pub(crate) step: Step,
    /// Not before this, seconds since 1970.
    pub(crate) until: Option<i64>,
    /// Those whom the step would break now.
    pub(crate) laggards: Vec<Holder>,
}

/// The next step, or what keeps it from being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Do this.
    Do(Step),
    /// Nothing to do before that.
    Wait(Vec<Waiting>),
}

/// Decides. Called again after each step.
pub(crate) fn next(standing: &Standing, facts: &Facts, now: i64, pace: Pace) -> Next {
    if let Some(epoch) = lost_history(standing, facts, now) {
        return Next::Do(Step::BeginEpoch(epoch));
    }
    let mut waiting = Vec::new();
    let decisions = [successor(standing, facts, now, pace)]
        .into_iter()
        .chain(
            standing
                .slots
                .iter()
                .filter(|slot| slot.phase == Phase::Retiring)
                .map(|slot| retire(slot, facts, now)),
        )
        .chain(standing.spoilt.iter().map(|spoilt| Some(spoil(spoilt, facts, now))))
        .chain(standing.retired.iter().map(|retired| bury(retired, now)));
    for decision in decisions.flatten() {
        match decision {
            Next::Do(step) => return Next::Do(step),
            Next::Wait(more) => waiting.extend(more),
        }
    }
    Next::Wait(waiting)
}

/// Who would be broken if `slot` signed now, because they do not know it.
pub(crate) fn strangers_to(slot: &Slot, standing: &Standing, facts: &Facts, now: i64) -> Vec<Holder> {
    let known_from = slot.published_at.map(|sequence| (standing.epoch, sequence));
    let knows = |holder: &Holder| known_from.is_some_and(|place| holder.knows >= place);
    facts.holders.iter().filter(|holder| holder.counts(now) && !knows(holder)).cloned().collect()
}

/// When a root with this life asks for a successor, seconds since 1970.
pub(crate) fn prepare_at(not_before: i64, not_after: i64) -> i64 {
    not_before.saturating_add(share((not_before, not_after), PREPARE_AT))
}

// The way of the next root, from nothing to active.
fn successor(standing: &Standing, facts: &Facts, now: i64, pace: Pace) -> Option<Next> {
    let active = standing.active()?;
    let coming = standing.slots.iter().find(|slot| matches!(slot.phase, Phase::Prepared | Phase::Published));
    let Some(slot) = coming else {
        if pace.makes == Maker::Others {
            return None;
        }
        let due = prepare_at(active.not_before, active.not_after);
        if active.tainted || now >= due {
            return Some(Next::Do(Step::Prepare));
        }
        return Some(Next::Wait(vec![Waiting {
            step: Step::Prepare,
            until: Some(due),
            laggards: Vec::new(),
        }]));
    };
    if slot.tainted {
        // Whoever has it will not use it: it has signed nothing.
        return Some(Next::Do(Step::Remove(slot.id.clone())));
    }
    if slot.phase == Phase::Prepared {
        return Some(Next::Do(Step::Publish(slot.id.clone())));
    }
    let step = Step::Activate(slot.id.clone());
    let laggards = strangers_to(slot, standing, facts, now);
    let connected_lag = laggards.iter().any(|holder| holder.connected);
    let last_call =
        now >= active.not_before.saturating_add(share((active.not_before, active.not_after), LAST_CALL));
    let hurried = active.tainted && (!connected_lag || now >= slot.since.saturating_add(TAINTED_PATIENCE));
    let until = slot.since.saturating_add(pace.lead);
    let ready = laggards.is_empty() && now >= until;
    if ready || hurried || slot.forced || last_call {
        return Some(Next::Do(step));
    }
    Some(Next::Wait(vec![Waiting { step, until: Some(until).filter(|until| now < *until), laggards }]))
}

fn retire(slot: &Slot, facts: &Facts, now: i64) -> Option<Next> {
    let step = Step::Remove(slot.id.clone());
    let until = slot.leaves_until.unwrap_or(slot.not_after).min(slot.not_after);
    if now >= until {
        return Some(Next::Do(step));
    }
    if !slot.tainted {
        return Some(Next::Wait(vec![Waiting { step, until: Some(until), laggards: Vec::new() }]));
    }
    Some(expel(step, living_by(&slot.key_id, facts, now), slot.since, now))
}

// While it waits, nobody is waited for.
fn bury(retired: &Retired, now: i64) -> Option<Next> {
    (now >= retired.until).then(|| Next::Do(Step::Bury(retired.id.clone())))
}

fn spoil(spoilt: &Spoilt, facts: &Facts, now: i64) -> Next {
    if now >= spoilt.until {
        return Next::Do(Step::Forget(spoilt.id.clone()));
    }
    if spoilt.refused {
        let step = Step::Forget(spoilt.id.clone());
        return Next::Wait(vec![Waiting { step, until: Some(spoilt.until), laggards: Vec::new() }]);
    }
    let step = Step::Refuse(spoilt.id.clone());
    expel(step, living_by(&spoilt.key_id, facts, now), spoilt.since, now)
}

// A tainted authority goes when nobody lives by it any more, and after the limit all the same.
fn expel(step: Step, laggards: Vec<Holder>, since: i64, now: i64) -> Next {
    let limit = since.saturating_add(TAINTED_LIMIT);
    if laggards.is_empty() || now >= limit {
        return Next::Do(step);
    }
    Next::Wait(vec![Waiting { step, until: Some(limit), laggards }])
}

/// Whose certificate the authority with this key vouches for.
pub(crate) fn living_by(key_id: &[u8], facts: &Facts, now: i64) -> Vec<Holder> {
    let lives = |holder: &&Holder| holder.counts(now) && holder.lives_by(key_id);
    facts.holders.iter().filter(lives).cloned().collect()
}

// Epochs are times. One from far in the future was made up, and must not take us there.
fn lost_history(standing: &Standing, facts: &Facts, now: i64) -> Option<u64> {
    const DAY: i64 = 24 * 3600;
    let (epoch, _) = facts.highest_seen;
    let latest = u64::try_from(now.saturating_add(DAY)).unwrap_or(0);
    let is_ahead = facts.highest_seen > (standing.epoch, standing.sequence) && epoch <= latest;
    is_ahead.then(|| u64::try_from(now).unwrap_or(0).max(epoch.saturating_add(1)))
}

fn share((not_before, not_after): (i64, i64), share: f64) -> i64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "seconds of a life fit")]
    let seconds = (not_after.saturating_sub(not_before) as f64 * share) as i64;
    seconds
}
