//! What a compiled policy is made of.

use std::sync::Arc;

use super::clause::{Attribute, Clause, Effect};
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
    /// `namespace/name rule 1`.
    pub(super) label: Arc<str>,
    pub(super) from: Vec<Vec<Clause>>,
    pub(super) to: Vec<Vec<Clause>>,
    pub(super) when: Vec<Clause>,
    /// It looks at something that only a parsed request shows.
    pub(super) needs_http: bool,
    /// Why it allows nothing (ALLOW), or denies everything (DENY), whatever was written.
    pub(super) doubt: Option<String>,
}

impl Rule {
    /// A rule that always holds, where nobody knows what was meant.
    pub(super) fn of_everything(label: &str, doubt: String) -> Self {
        let (from, to, when) = (Vec::new(), Vec::new(), Vec::new());
        Self { label: label.into(), from, to, when, needs_http: false, doubt: Some(doubt) }
    }

    /// Does it allow this? One in doubt allows nothing; one that needs HTTP allows no opaque stream.
    pub(super) fn allows(&self, facts: &Facts) -> bool {
        self.doubt.is_none()
            && (facts.request.is_some() || !self.needs_http)
            && self.holds(facts, Effect::Allow)
    }

    /// Does it deny this? Fields that cannot be seen are dropped, so that it denies more, never less.
    pub(super) fn denies(&self, facts: &Facts) -> bool {
        self.holds(facts, Effect::Deny)
    }

    /// Could it allow something on this port?
    pub(super) fn may_allow_on(&self, port: u16) -> bool {
        let fits = |clauses: &Vec<Clause>| clauses.iter().all(|clause| clause.may_hold_on(port));
        self.doubt.is_none() && (self.to.is_empty() || self.to.iter().any(fits)) && fits(&self.when)
    }

    /// The fields by which it denies this: of the first entries that hold, and all conditions. Dropped ones are left out.
    pub(super) fn matching<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a Clause> {
        let holds =
            move |clauses: &&Vec<Clause>| clauses.iter().all(|clause| clause.holds(facts, Effect::Deny));
        let from = self.from.iter().find(holds).into_iter().flatten();
        let to = self.to.iter().find(holds).into_iter().flatten();
        let seen = |clause: &&Clause| facts.request.is_some() || !clause.attribute.is_http();
        from.chain(to).chain(&self.when).filter(seen)
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        let listed = self.from.iter().chain(&self.to).flatten();
        listed.chain(&self.when).map(|clause| &clause.attribute)
    }

    fn holds(&self, facts: &Facts, effect: Effect) -> bool {
        let all = |clauses: &Vec<Clause>| clauses.iter().all(|clause| clause.holds(facts, effect));
        let one = |entries: &Vec<Vec<Clause>>| entries.is_empty() || entries.iter().any(all);
        one(&self.from) && one(&self.to) && all(&self.when)
    }
}
