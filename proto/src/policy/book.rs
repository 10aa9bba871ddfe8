//! The rules of one kind of all policies of a workload, in the order in which they were written.

use std::sync::Arc;

use super::{
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
}

impl Book {
    pub(super) fn new(effect: Effect) -> Self {
        Self { policies: Vec::new(), rules: Vec::new(), effect }
    }

    pub(super) fn add(&mut self, policy: Compiled) {
        self.policies.push(policy.key);
        self.rules.extend(policy.rules);
    }

    /// Is there no policy of this kind?
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The first rule that holds.
    pub(super) fn first(&self, facts: &Facts) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(facts, self.effect))
    }
}
