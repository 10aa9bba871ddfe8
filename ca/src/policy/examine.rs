//! What each policy that selects a workload makes of a request, rule by rule, with the line of each.
//!
//! A rule is decided on alone, by the engine itself, so that what is said of it here is what it does there.

use douane_proto::{
    facts::Facts,
    policy::{Answers, Decision, PolicyError, PolicySet, Trust, decide},
    resource::{AuthorizationPolicy, Kind, Resource},
    wire,
};
use serde::Serialize;

use crate::policy::asked::{Mesh, Workload};

/// What a policy makes of a request.
#[derive(Debug, Serialize)]
pub struct PolicyReport {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`.
    pub action: &'static str,
    /// It decides for the record only.
    pub dry_run: bool,
    /// `file:line`.
    pub place: String,
    /// Each of its rules.
    pub rules: Vec<RuleReport>,
}

/// What a rule makes of a request.
#[derive(Debug, Serialize)]
pub struct RuleReport {
    /// Counted from 1.
    pub rule: usize,
    /// `file:line`.
    pub place: String,
    /// Does it hold?
    pub matches: bool,
    /// By what, or the first field by which it does not.
    pub why: String,
}

/// Every policy that selects `workload`, in the order in which they are asked.
///
/// # Errors
/// None for a single policy.
pub fn examine(
    resources: &[Resource],
    workload: &Workload,
    mesh: &Mesh,
    facts: &Facts,
) -> Result<Vec<PolicyReport>, PolicyError> {
    let mut selected: Vec<(&Resource, &AuthorizationPolicy)> = resources
        .iter()
        .filter_map(|resource| match &resource.kind {
            Kind::AuthorizationPolicy(law) => Some((resource, law)),
            _ => None,
        })
        .filter(|(_, law)| {
            let root = &mesh.law.root_namespace;
            law.attachment.targets.is_empty()
                && law.attachment.scope.selects(&workload.namespace, &workload.labels, root)
        })
        .collect();
    selected.sort_by_key(|(resource, law)| (turn(law.policy.action()), resource.metadata.key()));
    selected.into_iter().map(|(resource, law)| report(resource, law, mesh, facts)).collect()
}

/// Where a policy, or a rule of it (counted from 1), was written.
#[must_use]
pub fn place(resources: &[Resource], policy: &str, rule: Option<usize>) -> Option<String> {
    let written = resources.iter().find_map(|resource| match &resource.kind {
        Kind::AuthorizationPolicy(law) if resource.metadata.key() == policy => Some((resource, law)),
        _ => None,
    });
    let (resource, law) = written?;
    Some(line_of(resource, law, rule))
}

fn line_of(resource: &Resource, law: &AuthorizationPolicy, rule: Option<usize>) -> String {
    let line = rule.and_then(|rule| law.rule_lines.get(rule.checked_sub(1)?));
    format!("{}:{}", resource.location.file.display(), line.unwrap_or(&resource.location.line))
}

// As the wire asks them.
fn turn(action: wire::Action) -> u8 {
    match action {
        wire::Action::Custom => 0,
        wire::Action::Audit => 1,
        wire::Action::Deny => 2,
        wire::Action::Allow => 3,
    }
}

fn report(
    resource: &Resource,
    law: &AuthorizationPolicy,
    mesh: &Mesh,
    facts: &Facts,
) -> Result<PolicyReport, PolicyError> {
    let mut rules = Vec::new();
    for (index, rule) in law.policy.rules.iter().enumerate() {
        let (matches, why) = outcome(&law.policy, rule, mesh, facts)?;
        rules.push(RuleReport {
            rule: index + 1,
            place: line_of(resource, law, Some(index + 1)),
            matches,
            why,
        });
    }
    Ok(PolicyReport {
        policy: resource.metadata.key(),
        action: law.policy.action().as_str_name(),
        dry_run: law.policy.dry_run,
        place: line_of(resource, law, None),
        rules,
    })
}

fn outcome(
    policy: &wire::Policy,
    rule: &wire::Rule,
    mesh: &Mesh,
    facts: &Facts,
) -> Result<(bool, String), PolicyError> {
    if policy.action() == wire::Action::Allow {
        return Ok(match alone(policy, wire::Action::Allow, rule, mesh, facts)? {
            None => (true, "it allows this".to_owned()),
            Some(why) => (false, why),
        });
    }
    match alone(policy, wire::Action::Deny, rule, mesh, facts)? {
        Some(why) => Ok((true, why.replacen("it denies", "it holds", 1))),
        // Where it does not deny, it does not allow either: the first field that stops it is the same.
        None => {
            let why = alone(policy, wire::Action::Allow, rule, mesh, facts)?;
            Ok((false, why.unwrap_or_else(|| "it does not hold".to_owned())))
        }
    }
}

// Why a policy of this rule alone denies; `None` where it does not.
fn alone(
    policy: &wire::Policy,
    action: wire::Action,
    rule: &wire::Rule,
    mesh: &Mesh,
    facts: &Facts,
) -> Result<Option<String>, PolicyError> {
    let single = wire::Policy {
        action: action.into(),
        rules: vec![rule.clone()],
        provider: String::new(),
        dry_run: false,
        ..policy.clone()
    };
    let set = wire::PolicySet { policies: vec![single], ..wire::PolicySet::default() };
    let trust = Trust { local: &mesh.trust_domain, aliases: &mesh.aliases };
    let set = PolicySet::from_wire(set, trust)?;
    Ok(match decide(&set, facts, &Answers::default()) {
        Decision::Deny(denial) => {
            let before = format!("policy {}/{} rule 1: ", policy.namespace, policy.name);
            Some(denial.reason.strip_prefix(&before).unwrap_or(&denial.reason).to_owned())
        }
        Decision::Allow(_) | Decision::Ask(_) => None,
    })
}

impl PolicyReport {
    /// For a human.
    pub(crate) fn lines(&self) -> Vec<String> {
        let dry = if self.dry_run { ", dry run" } else { "" };
        let mut lines = vec![format!("{} policy {} ({}{dry})", self.place, self.policy, self.action)];
        if self.rules.is_empty() {
            lines.push("  it has no rules".to_owned());
        }
        for RuleReport { rule, place, matches, why } in &self.rules {
            let outcome = if *matches { "matches" } else { "does not match" };
            lines.push(format!("  {place} rule {rule} {outcome}: {why}"));
        }
        lines
    }
}
