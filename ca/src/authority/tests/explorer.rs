//! T17: the machine alone, driven through random lives: sidecars join, leave, renew and lag, operators rotate, force and
//! taint, time passes. Whatever happens, no step is taken that must not be.

use std::sync::Arc;

use proptest::prelude::*;

use super::domain;
use crate::{
    authority::{
        plan::{self, Facts, Maker, Next, Pace, Step},
        standing::{Keys, Phase, Slot, Standing},
    },
    holders::Holder,
};

const PACE: Pace = Pace { lead: 5, makes: Maker::Us };
const ROOT_LIFE: i64 = 10_000;
const LEAF_LIFE: i64 = 300;
/// A whole rotation has four steps, and two may be under way with a taint.
const MOST_STEPS: usize = 16;

#[derive(Debug, Clone)]
enum Event {
    Pass(i64),
    Rotate,
    Force,
    Taint(prop::sample::Index),
    Join(usize),
    Leave(usize),
    Acknowledge(usize),
}

struct Leaf {
    root: Vec<u8>,
    until: i64,
}

struct World {
    standing: Standing,
    holders: Vec<Holder>,
    leaves: Vec<Leaf>,
    now: i64,
    made: u8,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1_i64..120).prop_map(Event::Pass),
        1 => (200_i64..6000).prop_map(Event::Pass),
        2 => Just(Event::Rotate),
        1 => Just(Event::Force),
        1 => any::<prop::sample::Index>().prop_map(Event::Taint),
        3 => (0_usize..4).prop_map(Event::Join),
        2 => (0_usize..4).prop_map(Event::Leave),
        4 => (0_usize..4).prop_map(Event::Acknowledge),
    ];
    prop::collection::vec(event, 1..60)
}

fn slot(made: u8, now: i64) -> Slot {
    Slot {
        id: format!("root-{made}"),
        phase: Phase::Prepared,
        since: now,
        tainted: false,
        forced: false,
        published_at: None,
        leaves_until: None,
        certificate: vec![made; 3],
        key_id: vec![made],
        not_before: now,
        not_after: now + ROOT_LIFE,
        jwt_spki: vec![made; 2],
        keys: Arc::new(Keys { x509: None, jwt: Vec::new().into() }),
    }
}

impl World {
    fn new() -> Self {
        let standing = Standing::first(domain(), slot(0, 0), 1);
        Self { standing, holders: Vec::new(), leaves: Vec::new(), now: 0, made: 0 }
    }

    fn prepared(&mut self) -> Standing {
        self.made += 1;
        self.standing.with_prepared(slot(self.made, self.now))
    }

    fn holder(&mut self, number: usize) -> &mut Holder {
        let name = format!("shop/web-{number}");
        let at = self.holders.iter().position(|holder| holder.name == name).unwrap_or_else(|| {
            let authorities = Vec::new();
            self.holders.push(Holder { name, connected: false, knows: (0, 0), until: 0, authorities });
            self.holders.len() - 1
        });
        &mut self.holders[at]
    }

    fn place(&self) -> (u64, u64) {
        (self.standing.epoch, self.standing.sequence)
    }

    fn happen(&mut self, event: &Event) {
        let (place, now) = (self.place(), self.now);
        let coming = |it: &&Slot| matches!(it.phase, Phase::Prepared | Phase::Published);
        match event {
            Event::Pass(seconds) => self.now += seconds,
            Event::Rotate if self.standing.slots.len() < 8 => {
                if !self.standing.slots.iter().any(|it| coming(&it)) {
                    self.standing = self.prepared();
                }
            }
            Event::Force => {
                if let Some(id) = self.standing.slots.iter().find(coming).map(|it| it.id.clone()) {
                    self.standing = self.standing.with_forced(&id);
                }
            }
            Event::Taint(which) => {
                let id = which.get(&self.standing.slots).id.clone();
                self.standing = self.standing.with_tainted(&id);
            }
            Event::Join(number) => {
                let active = self.standing.active().unwrap();
                let (root, until) = (active.key_id.clone(), (now + LEAF_LIFE).min(active.not_after));
                let holder = self.holder(*number);
                (holder.connected, holder.knows, holder.until) = (true, place, until);
                holder.authorities = vec![root.clone()];
                self.leaves.push(Leaf { root, until });
            }
            Event::Leave(number) => self.holder(*number).connected = false,
            Event::Acknowledge(number) => {
                let holder = self.holder(*number);
                if holder.connected {
                    holder.knows = place;
                }
            }
            Event::Rotate => {}
        }
        self.settle();
    }

    // What `rotation` does, without keys and disk.
    fn settle(&mut self) {
        for _ in 0..MOST_STEPS {
            let facts = Facts { holders: self.holders.clone(), ..Facts::default() };
            let Next::Do(step) = plan::next(&self.standing, &facts, self.now, PACE) else { return };
            let before = self.standing.clone();
            self.check(&step, &facts);
            self.standing = match &step {
                Step::Prepare => self.prepared(),
                Step::Publish(id) => before.with_published(id, self.now),
                Step::Activate(id) => {
                    let until = self.leaves.iter().map(|leaf| leaf.until).max().unwrap_or(self.now);
                    before.with_active(id, until, self.now)
                }
                Step::Remove(id) => before.without(id),
                other => panic!("{other:?} has no reason"),
            };
            self.compare(&before, &step);
        }
        panic!("steps without end: {:?}", self.standing);
    }

    fn check(&self, step: &Step, facts: &Facts) {
        let slot = |id: &str| self.standing.slot(id).expect("a step names a root that there is");
        match step {
            Step::Prepare => {
                let active = self.standing.active().unwrap();
                assert!(active.tainted || self.now >= active.not_before + ROOT_LIFE / 2);
            }
            Step::Activate(id) => {
                let (next, active) = (slot(id), self.standing.active().unwrap());
                assert_eq!(next.phase, Phase::Published, "B: published before it signs");
                assert!(!next.tainted, "a tainted root never signs");
                let late = self.now >= active.not_before + ROOT_LIFE * 9 / 10;
                if !next.forced && !active.tainted && !late {
                    let lagging = plan::strangers_to(next, &self.standing, facts, self.now);
                    assert!(lagging.is_empty(), "{lagging:?} would be broken");
                    assert!(self.now >= next.since + PACE.lead);
                }
            }
            Step::Remove(id) => {
                let old = slot(id);
                assert_ne!(old.phase, Phase::Active, "the root that signs is never removed");
                let valid = self.leaves.iter().any(|leaf| leaf.root == old.key_id && leaf.until > self.now);
                assert!(!valid || old.tainted, "what it signed is still valid");
            }
            _ => {}
        }
    }

    fn compare(&self, before: &Standing, step: &Step) {
        let after = &self.standing;
        assert_eq!(
            after.slots.iter().filter(|slot| slot.phase == Phase::Active).count(),
            1,
            "after {step:?}"
        );
        assert!(after.generation > before.generation);
        let (old, new) = (before.bundle(), after.bundle());
        let same = old.roots == new.roots
            && old.jwt_keys == new.jwt_keys
            && old.tainted_keys == new.tainted_keys
            && old.refused_keys == new.refused_keys;
        assert_eq!(same, old.sequence == new.sequence, "C: after {step:?}");
        assert!(new.place() >= old.place(), "C: after {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn t17_and_invariants_b_c_no_life_of_a_root_takes_a_wrong_step(events in events()) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
    }

    #[test]
    fn t17_every_rotation_comes_to_its_end_when_everybody_acknowledges(events in events()) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        for _ in 0..40 {
            for number in 0..4 {
                world.happen(&Event::Join(number));
            }
            world.happen(&Event::Pass(30));
        }
        // One may have become due in the last rounds.
        let coming = |slot: &&Slot| matches!(slot.phase, Phase::Prepared | Phase::Published);
        let stuck = world.standing.slots.iter().filter(coming).find(|slot| slot.since + 120 < world.now);
        prop_assert!(stuck.is_none(), "{stuck:?} waits at {}", world.now);
        prop_assert!(!world.standing.active().unwrap().tainted);
    }
}
