//! The one decision: may this request or stream pass? Pure: policies and facts in, a decision out.

use std::sync::Arc;

use super::{
    denial::Denial,
    explain,
    provider::{Answer, Answers, Provider},
    set::{Custom, PolicySet},
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
pub fn decide(policies: &PolicySet, facts: &Facts, answers: &Answers) -> Decision {
    let mut unasked = Vec::new();
    for (name, custom) in &policies.custom {
        match consult(name, custom, facts, answers) {
            Consulted::Passes => {}
            Consulted::Unasked(provider) => unasked.push(provider),
            Consulted::Denies(denial) => return Decision::Deny(denial),
        }
    }
    if !unasked.is_empty() {
        return Decision::Ask(unasked);
    }
    if let Some(rule) = policies.deny.first(facts) {
        return Decision::Deny(explain::denied_by(rule, facts));
    }
    let permit = |by| Decision::Allow(Permit { by, _made_by_decision: () });
    if policies.allow.is_empty() {
        return permit(None);
    }
    match policies.allow.first(facts) {
        Some(rule) => permit(Some(Arc::clone(&rule.label))),
        None => Decision::Deny(explain::not_allowed(&policies.allow, facts)),
    }
}

// What the CUSTOM policies of one provider make of it.
enum Consulted {
    Passes,
    Unasked(Arc<Provider>),
    Denies(Denial),
}

fn consult(name: &str, custom: &Custom, facts: &Facts, answers: &Answers) -> Consulted {
    if facts.request.is_none() && custom.is_http() {
        // There is nothing that such an authorizer could be shown. Only a port that is declared opaque comes here.
        return Consulted::Passes;
    }
    let Some(rule) = custom.book.first(facts) else { return Consulted::Passes };
    let Some(provider) = &custom.provider else {
        return Consulted::Denies(explain::undefined_authorizer(rule, name));
    };
    match answers.of(name) {
        None => Consulted::Unasked(Arc::clone(provider)),
        Some(Answer::Allow) => Consulted::Passes,
        Some(Answer::Deny) => Consulted::Denies(explain::authorizer_denied(rule, name)),
        Some(Answer::Failed(_)) if provider.fail_open => Consulted::Passes,
        Some(Answer::Failed(why)) => Consulted::Denies(explain::authorizer_failed(rule, provider, why)),
    }
}
