//! The rules of one kind of all policies of a workload, in the order in which they were written.

use std::sync::Arc;

use super::{
    index::Index,
    matcher::Effect,
    rule::{Compiled, Rule},
};
use crate::facts::Facts;

/// The rules of one kind.
#[derive(Debug, Clone)]
pub(super) struct Book {
    /// `namespace/name` of each policy, also of one without rules.
    pub(super) policies: Vec<Arc<str>>,
    pub(super) rules: Vec<Rule>,
    pub(super) effect: Effect,
    index: Index,
}

impl Book {
    /// One without policies.
    pub(super) fn new(effect: Effect) -> Self {
        Self { policies: Vec::new(), rules: Vec::new(), effect, index: Index::default() }
    }

    /// Adds the rules of a policy. They are found once the book is [closed](Self::close).
    pub(super) fn add(&mut self, policy: Compiled) {
        self.policies.push(policy.key);
        self.rules.extend(policy.rules);
    }

    /// Makes all rules be found.
    pub(super) fn close(&mut self) {
        self.index = Index::of(&self.rules, self.effect);
    }

    /// Is there no policy of this kind?
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The first rule that holds.
    pub(super) fn first(&self, facts: &Facts) -> Option<&Rule> {
        let mut first: Option<(u32, &Rule)> = None;
        self.index.visit(facts, self.effect, |rules| {
            for at in rules {
                if first.is_some_and(|(best, _)| best <= *at) {
                    break;
                }
                if let Some(rule) = self.rule(*at).filter(|rule| rule.matches(facts, self.effect)) {
                    first = Some((*at, rule));
                    break;
                }
            }
        });
        first.map(|(_, rule)| rule)
    }

    /// The first `most` of the rules that could hold, in no order.
    pub(super) fn candidates(&self, facts: &Facts, most: usize) -> Vec<(usize, &Rule)> {
        let mut found = Vec::new();
        self.index.visit(facts, self.effect, |rules| {
            let left = most.saturating_sub(found.len());
            let numbered = rules.iter().filter_map(|at| Some((usize::try_from(*at).ok()?, self.rule(*at)?)));
            found.extend(numbered.take(left));
        });
        found
    }

    fn rule(&self, at: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(at).ok()?)
    }
}
