//! The one decision: may this request or stream pass? Pure: policies and facts in, a decision out.

use std::sync::Arc;

use super::{
    explain::{self, Denial},
    provider::{Answers, Provider},
    set::PolicySet,
};
use crate::facts::Facts;

/// May it pass?
#[derive(Debug)]
pub enum Decision {
    /// Yes: the permit that forwarding demands.
    Allow(Permit),
    /// No, and why.
    Deny(Denial),
    /// Not known before these have answered; the caller asks them and decides again with what they said.
    Ask(Vec<Arc<Provider>>),
}

/// The proof that a decision allowed something. Only [`decide`] makes one.
#[derive(Debug, Clone)]
#[expect(clippy::manual_non_exhaustive, reason = "other modules of this crate must not make one either")]
pub struct Permit {
    /// The policy and rule that allowed it, such as `shop/orders-callers rule 1`; `None` where no ALLOW policy selects
    /// the workload.
    pub by: Option<Arc<str>>,
    _made_by_decision: (),
}

/// Decides on `facts` by `policies`: CUSTOM before DENY before ALLOW, and what no ALLOW policy allows is denied once one
/// selects the workload. Allocates only to say why it denies, and whom to ask.
#[must_use]
pub fn decide(policies: &PolicySet, facts: &Facts, _answers: &Answers) -> Decision {
    for policy in &policies.deny {
        if let Some((index, rule)) = policy.rules.iter().enumerate().find(|(_, rule)| rule.denies(facts)) {
            return Decision::Deny(explain::denied_by(policy, index, rule, facts));
        }
    }
    if policies.allow.is_empty() {
        return Decision::Allow(Permit { by: None, _made_by_decision: () });
    }
    let mut rules = policies.allow.iter().flat_map(|policy| &policy.rules);
    match rules.find(|rule| rule.allows(facts)) {
        Some(rule) => Decision::Allow(Permit { by: Some(Arc::clone(&rule.label)), _made_by_decision: () }),
        None => Decision::Deny(explain::not_allowed(policies, facts)),
    }
}
