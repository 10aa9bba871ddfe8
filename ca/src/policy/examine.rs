//! What each policy that selects a workload makes of a request, rule by rule, with the line of each.

use douane_proto::{
    facts::Facts,
    policy::{Doubtful, DoubtfulStanding, Examined, Finding, PolicySet, examine},
    resource::{AuthorizationPolicy, Kind, Resource},
};
use serde::Serialize;

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

/// Every policy of the set, in the order in which they are asked. `resources`: where they were written.
#[must_use]
pub fn report(policies: &PolicySet, facts: &Facts, resources: &[Resource]) -> Vec<PolicyReport> {
    let mut reports: Vec<PolicyReport> = Vec::new();
    for Examined { policy, action, dry_run, rule, finding, widened } in examine(policies, facts) {
        let place = |rule| place(resources, &policy, rule).unwrap_or_default();
        let is_same = |report: &PolicyReport| {
            report.policy == *policy && report.action == action.as_str_name() && report.dry_run == dry_run
        };
        if !reports.last().is_some_and(is_same) {
            reports.push(PolicyReport {
                policy: policy.to_string(),
                action: action.as_str_name(),
                dry_run,
                place: place(None),
                rules: Vec::new(),
            });
        }
        if let (Some(rule), Some(report)) = (rule, reports.last_mut()) {
            let (matches, why) = told(finding);
            let why = widened.into_iter().fold(why, |why, widened| format!("{why}; {widened}"));
            report.rules.push(RuleReport { rule, place: place(Some(rule)), matches, why });
        }
    }
    reports
}

/// A rule that is void or wider than written, for a human.
#[must_use]
pub fn doubt(doubtful: &Doubtful) -> String {
    let Doubtful { policy, rule, standing, why } = doubtful;
    let is = match standing {
        DoubtfulStanding::Void => "allows nothing",
        DoubtfulStanding::Widened => "holds for more than it says",
    };
    format!("policy {policy} rule {rule} {is} on this port: {why}")
}

fn told(finding: Finding) -> (bool, String) {
    match finding {
        Finding::Holds(by) if by.is_empty() => (true, "it always does".to_owned()),
        Finding::Holds(by) => (true, by.join(" and ")),
        Finding::Fails(why) | Finding::Void(why) => (false, why),
    }
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
