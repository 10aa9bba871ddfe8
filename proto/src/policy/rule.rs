//! What a compiled policy is made of.

use std::sync::Arc;

use super::{attribute::Attribute, clause::Clause, matcher::Effect};
use crate::facts::Facts;

/// A compiled policy.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    /// `namespace/name`.
    pub(super) key: Arc<str>,
    pub(super) rules: Vec<Rule>,
}

/// A compiled rule: one of `from`, one of `to` (where there are some) and all of `when` must hold.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// `namespace/name` of its policy.
    pub(super) policy: Arc<str>,
    /// Which of the policy's rules it is, counted from 1.
    pub(super) number: usize,
    /// `namespace/name rule 1`.
    pub(super) label: Arc<str>,
    pub(super) from: Vec<Vec<Clause>>,
    pub(super) to: Vec<Vec<Clause>>,
    pub(super) when: Vec<Clause>,
    /// It looks at something that only a parsed request shows.
    pub(super) needs_http: bool,
    pub(super) standing: Standing,
}

/// Is a rule enforced as it was written?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Sound,
    /// An ALLOW rule that allows nothing, and why.
    Void(String),
    /// A rule that holds for more than was written, and why.
    Widened(String),
}

impl Compiled {
    /// A policy of one rule that always holds, where nobody knows what was meant.
    pub(super) fn of_everything(key: &Arc<str>, why: &str) -> Self {
        Self { key: Arc::clone(key), rules: vec![Rule::of_everything(key, 1, why)] }
    }

    /// The policy with rules that allow nothing.
    pub(super) fn void(mut self, why: &str) -> Self {
        for rule in &mut self.rules {
            rule.standing = Standing::Void(format!("it is void, since {why}"));
        }
        self
    }
}

impl Rule {
    /// A rule that looks at nothing yet, so that it always holds.
    pub(super) fn new(policy: &Arc<str>, number: usize) -> Self {
        Self {
            policy: Arc::clone(policy),
            number,
            label: format!("{policy} rule {number}").into(),
            from: Vec::new(),
            to: Vec::new(),
            when: Vec::new(),
            needs_http: false,
            standing: Standing::Sound,
        }
    }

    /// A rule that always holds, where nobody knows what was meant.
    pub(super) fn of_everything(policy: &Arc<str>, number: usize, why: &str) -> Self {
        let standing = Standing::Widened(format!("it holds for everything, since {why}"));
        Self { standing, ..Self::new(policy, number) }
    }

    /// Does it hold? An ALLOW rule that is void, or needs HTTP of an opaque stream, never does; of any other rule the
    /// fields that cannot be seen are dropped, so that it holds for more, never for less.
    pub(super) fn matches(&self, facts: &Facts, effect: Effect) -> bool {
        let may = match effect {
            Effect::Allow => !self.is_void() && (facts.request.is_some() || !self.needs_http),
            Effect::Deny => true,
        };
        may && self.holds(facts, effect)
    }

    pub(super) fn is_void(&self) -> bool {
        matches!(self.standing, Standing::Void(_))
    }

    /// Could it hold on this port?
    pub(super) fn may_hold_on(&self, port: u16) -> bool {
        let fits = |clauses: &Vec<Clause>| clauses.iter().all(|clause| clause.may_hold_on(port));
        (self.to.is_empty() || self.to.iter().any(fits)) && fits(&self.when)
    }

    /// The fields by which it holds: of the first entries that do, and all conditions. Dropped ones are left out.
    pub(super) fn matching<'a>(
        &'a self,
        facts: &'a Facts,
        effect: Effect,
    ) -> impl Iterator<Item = &'a Clause> {
        let holds = move |clauses: &&Vec<Clause>| clauses.iter().all(|clause| clause.holds(facts, effect));
        let from = self.from.iter().find(holds).into_iter().flatten();
        let to = self.to.iter().find(holds).into_iter().flatten();
        let seen = |clause: &&Clause| facts.request.is_some() || !clause.attribute.is_http();
        from.chain(to).chain(&self.when).filter(seen)
    }

    pub(super) fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.clauses().map(|clause| &clause.attribute)
    }

    fn holds(&self, facts: &Facts, effect: Effect) -> bool {
        let all = |clauses: &Vec<Clause>| clauses.iter().all(|clause| clause.holds(facts, effect));
        let one = |entries: &Vec<Vec<Clause>>| entries.is_empty() || entries.iter().any(all);
        one(&self.from) && one(&self.to) && all(&self.when)
    }
}
