//! What policies say for the record only: AUDIT, and policies in a dry run. Neither changes a verdict.

use std::sync::Arc;

use super::{denial::Denial, explain, set::PolicySet};
use crate::facts::Facts;

/// What the policies in a dry run alone would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shadow {
    /// They would let it pass.
    Allow {
        /// The policy and rule that would allow it; `None` where no ALLOW policy is in a dry run.
        by: Option<Arc<str>>,
    },
    /// They would deny it, and why.
    Deny(Denial),
}

/// The first AUDIT rule that holds, such as `shop/watch-admin rule 1`.
#[must_use]
pub fn audited_by(policies: &PolicySet, facts: &Facts) -> Option<Arc<str>> {
    policies.audit.first(facts).map(|rule| Arc::clone(&rule.label))
}

/// What the policies in a dry run alone would have decided; `None` where there are none.
#[must_use]
pub fn shadow(policies: &PolicySet, facts: &Facts) -> Option<Shadow> {
    let (deny, allow) = (&policies.dry_deny, &policies.dry_allow);
    if deny.is_empty() && allow.is_empty() {
        return None;
    }
    if let Some(rule) = deny.first(facts) {
        return Some(Shadow::Deny(explain::denied_by(rule, facts)));
    }
    if allow.is_empty() {
        return Some(Shadow::Allow { by: None });
    }
    Some(match allow.first(facts) {
        Some(rule) => Shadow::Allow { by: Some(Arc::clone(&rule.label)) },
        None => Shadow::Deny(explain::not_allowed(allow, facts)),
    })
}
