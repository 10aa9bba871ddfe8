//! A policy as its author wrote it, as it travels.

use super::{
    attribute::{Key, parse_key},
    compile::{Problem, compile},
    flaw::{PolicyFlaw, Step},
    trust::Trust,
    value::Context,
    warn::warnings,
};
use crate::{features, wire};

/// An authorization policy as written. One that exists is valid, unless it was made [in doubt](Policy::in_doubt).
#[derive(Debug, Clone, PartialEq)]
pub struct Policy(wire::Policy);

impl Policy {
    /// Takes a policy as written, if it is valid and all of it is implemented.
    ///
    /// # Errors
    /// All its flaws.
    pub fn from_wire(policy: wire::Policy) -> Result<Self, Vec<PolicyFlaw>> {
        match Self::in_doubt(policy) {
            (policy, flaws) if flaws.is_empty() => Ok(policy),
            (_, flaws) => Err(flaws),
        }
    }

    /// Takes a policy as written with all its flaws. What is wrong of it allows nothing, and denies all that it could have
    /// denied; for tools that show what a sidecar makes of it.
    #[must_use]
    pub fn in_doubt(policy: wire::Policy) -> (Self, Vec<PolicyFlaw>) {
        let flaws = flaws(&policy);
        let requires = requires(&policy);
        (Self(wire::Policy { requires, ..policy }), flaws)
    }

    /// A policy that denies everything: what stands in for one that cannot be read.
    #[must_use]
    pub fn deny_everything(namespace: &str, name: &str) -> Self {
        Self(wire::Policy {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            action: wire::Action::Deny.into(),
            rules: vec![wire::Rule::default()],
            requires: vec![features::POLICY_V1.to_owned()],
            ..wire::Policy::default()
        })
    }

    /// The message that carries it, with the features that it requires.
    #[must_use]
    pub fn to_wire(&self) -> wire::Policy {
        self.0.clone()
    }

    /// The message that carries it, to look at.
    #[must_use]
    pub fn message(&self) -> &wire::Policy {
        &self.0
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it does that its author may not expect, one line each.
    #[must_use]
    pub fn warnings(&self, trust: Trust<'_>) -> Vec<String> {
        warnings(&self.0, trust)
    }
}

fn flaws(policy: &wire::Policy) -> Vec<PolicyFlaw> {
    let Ok(action) = wire::Action::try_from(policy.action) else {
        return vec![PolicyFlaw {
            path: vec![Step::Field("action")],
            what: format!("there is no action {}", policy.action),
            mend: "ALLOW, DENY, CUSTOM and AUDIT are known".to_owned(),
            unsupported: true,
        }];
    };
    let context = Context { namespace: &policy.namespace, trust: None };
    let wrong = |problem| match problem {
        Problem::Wrong(flaw) => Some(flaw),
        Problem::Unseen(_) => None,
    };
    compile(policy, action, context).problems.into_iter().filter_map(wrong).collect()
}

// Without these features it would be enforced otherwise than written.
fn requires(policy: &wire::Policy) -> Vec<String> {
    let mut requires = vec![features::POLICY_V1.to_owned()];
    if needs_second_version(policy) {
        requires.push(features::POLICY_V2.to_owned());
    }
    requires
}

fn needs_second_version(policy: &wire::Policy) -> bool {
    let action = wire::Action::try_from(policy.action);
    let is_of_first = matches!(action, Ok(wire::Action::Allow | wire::Action::Deny))
        && !policy.dry_run
        && policy.provider.is_empty()
        && policy.unreadable.is_empty();
    !is_of_first || policy.rules.iter().any(rule_needs_second_version)
}

fn rule_needs_second_version(rule: &wire::Rule) -> bool {
    let source = |source: &wire::Source| {
        [
            &source.request_principals,
            &source.not_request_principals,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            &source.trust_domains,
            &source.not_trust_domains,
            &source.unreadable,
        ]
        .iter()
        .any(|list| !list.is_empty())
    };
    let condition = |condition: &wire::Condition| {
        let is_of_first =
            matches!(parse_key(&condition.key), Ok(Key::Known(attribute)) if attribute.is_of_first_version());
        !is_of_first || !condition.unreadable.is_empty() || condition.key.contains("[:")
    };
    !rule.unreadable.is_empty()
        || rule.from.iter().any(source)
        || rule.to.iter().any(|operation| !operation.unreadable.is_empty())
        || rule.when.iter().any(condition)
}
