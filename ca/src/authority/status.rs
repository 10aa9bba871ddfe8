//! What an operator is told of the authority: as values that travel over the admin socket and that `-o json` prints.
//!
//! Pure. Knows not how it is printed (`cli`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    pen::Signing,
    plan::{self, Facts, Step, Waiting},
    standing::{Phase, Slot, Spoilt, Standing},
};
use crate::{federation::DomainStatus, holders::Holder};

/// More names help nobody; the number is said anyway.
const MOST_NAMES: usize = 20;

/// The authority, as of now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Does a control plane run? Otherwise this is what lies on the disk.
    pub running: bool,
    /// The clock it was made by, seconds since 1970; as all times here.
    pub now: i64,
    /// Whose identities are signed.
    pub trust_domain: String,
    /// Which history of the bundle.
    pub epoch: u64,
    /// Its place in it.
    pub sequence: u64,
    /// All roots, the oldest first.
    pub roots: Vec<Root>,
    /// What signs; none while nothing runs.
    pub intermediate: Option<Intermediate>,
    /// Intermediates that sign no more.
    pub tainted_intermediates: Vec<Tainted>,
    /// Who holds certificates; none while nothing runs.
    pub sidecars: Option<Sidecars>,
    /// What comes next, and what it waits for.
    pub next: Vec<Pending>,
    /// How long a new root lives, and waits at least until it signs: seconds.
    pub root_life: Option<i64>,
    /// See `root_life`.
    pub root_lead: Option<i64>,
    /// Nothing that was signed until now is valid after this.
    pub signed_until: Option<i64>,
    /// Other trust domains whose identities are believed; none while nothing runs.
    #[serde(default)]
    pub federated: Vec<DomainStatus>,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Its id, which is its common name as well.
    pub id: String,
    /// prepared, published, active or retiring.
    pub phase: String,
    /// Since when.
    pub since: i64,
    /// Is it on its way out because somebody said so?
    pub tainted: bool,
    /// Does its way go on whoever lags?
    pub forced: bool,
    /// The beginning of its life.
    pub not_before: i64,
    /// Its end.
    pub not_after: i64,
    /// Retiring: no certificate below it is valid after this.
    pub leaves_until: Option<i64>,
}

/// The intermediate that signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intermediate {
    /// Its id.
    pub id: String,
    /// The id of the root above it.
    pub root: String,
    /// Its end.
    pub not_after: i64,
    /// When the next takes its place.
    pub renewed_at: i64,
    /// Those before it that are still valid.
    pub before: Vec<String>,
}

/// An intermediate that signs no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tainted {
    /// Its id, or key identifier.
    pub id: String,
    /// Is it refused everywhere?
    pub refused: bool,
    /// The end of its life.
    pub until: i64,
}

/// Who holds certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecars {
    /// With a stream.
    pub connected: usize,
    /// Of these, those that use the newest bundle.
    pub up_to_date: usize,
    /// Without a stream, but with a certificate that is still valid.
    pub away: Lagging,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// What will happen, in words.
    pub step: String,
    /// The root or intermediate that it happens to.
    pub authority: Option<String>,
    /// Not before this.
    pub not_before: Option<i64>,
    /// Those who keep it from happening.
    pub lagging: Lagging,
}

/// Some holders by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lagging {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub names: Vec<Laggard>,
}

/// A holder by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Laggard {
    /// `namespace/pod`, or an identity.
    pub name: String,
    /// Has it a stream?
    pub connected: bool,
    /// Its certificate ends then.
    pub until: i64,
}

/// What a status is made of.
pub(crate) struct Seen<'a> {
    pub(crate) standing: &'a Standing,
    pub(crate) waiting: &'a [Waiting],
    /// Intermediates that signed before and are still valid.
    pub(crate) past: Vec<String>,
    pub(crate) root_life: Duration,
    pub(crate) root_lead: Duration,
    pub(crate) signing: &'a Signing,
    pub(crate) facts: &'a Facts,
    pub(crate) signed_until: i64,
}

/// What is told of a state that nobody runs on; no keys are read.
pub(crate) struct AtRest {
    pub(crate) trust_domain: String,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) roots: Vec<Root>,
    pub(crate) tainted: Vec<Tainted>,
}

impl Status {
    /// Of a running authority.
    pub(crate) fn running(seen: &Seen<'_>, now: i64) -> Self {
        let standing = seen.standing;
        let place = (standing.epoch, standing.sequence);
        let signer = &seen.signing.intermediate;
        let connected = || seen.facts.holders.iter().filter(|holder| holder.connected);
        let seconds = |life: Duration| i64::try_from(life.as_secs()).ok();
        Self {
            running: true,
            now,
            trust_domain: standing.trust_domain.to_string(),
            epoch: standing.epoch,
            sequence: standing.sequence,
            roots: standing.slots.iter().map(Root::of).collect(),
            intermediate: Some(Intermediate {
                id: signer.id.clone(),
                root: seen.signing.root_id().to_owned(),
                not_after: signer.not_after,
                renewed_at: signer.half_life(),
                before: seen.past.clone(),
            }),
            tainted_intermediates: standing.spoilt.iter().map(Tainted::of).collect(),
            sidecars: Some(Sidecars {
                connected: connected().count(),
                up_to_date: connected().filter(|holder| holder.knows >= place).count(),
                away: Lagging::of(
                    seen.facts.holders.iter().filter(|holder| !holder.connected && holder.counts(now)),
                ),
            }),
            next: seen.waiting.iter().map(|waiting| Pending::of(waiting, now)).collect(),
            root_life: seconds(seen.root_life),
            root_lead: seconds(seen.root_lead),
            signed_until: Some(seen.signed_until),
            federated: Vec::new(),
        }
    }

    /// Of what lies on the disk.
    pub(crate) fn at_rest(state: &AtRest, now: i64) -> Self {
        Self {
            running: false,
            now,
            trust_domain: state.trust_domain.clone(),
            epoch: state.epoch,
            sequence: state.sequence,
            roots: state.roots.clone(),
            intermediate: None,
            tainted_intermediates: state.tainted.clone(),
            sidecars: None,
            next: Vec::new(),
            root_life: None,
            root_lead: None,
            signed_until: None,
            federated: Vec::new(),
        }
    }

    /// The root that signs.
    #[must_use]
    pub fn active(&self) -> Option<&Root> {
        self.roots.iter().find(|root| root.phase == Phase::Active.name())
    }

    /// The root that will sign.
    #[must_use]
    pub fn coming(&self) -> Option<&Root> {
        let names = [Phase::Prepared.name(), Phase::Published.name()];
        self.roots.iter().find(|root| names.contains(&root.phase.as_str()))
    }
}

impl Root {
    fn of(slot: &Slot) -> Self {
        Self {
            id: slot.id.clone(),
            phase: slot.phase.name().to_owned(),
            since: slot.since,
            tainted: slot.tainted,
            forced: slot.forced,
            not_before: slot.not_before,
            not_after: slot.not_after,
            leaves_until: slot.leaves_until,
        }
    }

    /// When the next root is prepared.
    #[must_use]
    pub fn replaced_from(&self) -> i64 {
        plan::prepare_at(self.not_before, self.not_after)
    }
}

impl Tainted {
    pub(crate) fn of(spoilt: &Spoilt) -> Self {
        Self { id: spoilt.id.clone(), refused: spoilt.refused, until: spoilt.until }
    }
}

impl Pending {
    fn of(waiting: &Waiting, now: i64) -> Self {
        let (step, authority) = match &waiting.step {
            Step::BeginEpoch(_) => ("begin a new history of the bundle", None),
            Step::Prepare => ("prepare the next root", None),
            Step::Publish(id) => ("publish the new root", Some(id)),
            Step::Activate(id) => ("let the new root sign", Some(id)),
            Step::Remove(id) => ("take the old root out of the bundle", Some(id)),
            Step::Refuse(id) => ("let everybody refuse the tainted intermediate", Some(id)),
            Step::Forget(id) => ("forget the intermediate, which has ended then", Some(id)),
            Step::Bury(id) => ("forget the root, below which nothing runs then", Some(id)),
        };
        Self {
            step: step.to_owned(),
            authority: authority.cloned(),
            not_before: waiting.until.filter(|until| *until > now),
            lagging: Lagging::of(waiting.laggards.iter()),
        }
    }
}

impl Lagging {
    pub(crate) fn of<'a>(holders: impl Iterator<Item = &'a Holder>) -> Self {
        let mut lagging = Self::default();
        for holder in holders {
            lagging.count += 1;
            if lagging.names.len() < MOST_NAMES {
                let Holder { name, connected, until, .. } = holder;
                lagging.names.push(Laggard { name: name.clone(), connected: *connected, until: *until });
            }
        }
        lagging
    }
}
