//! All findings of a set of files.

use std::{collections::BTreeMap, sync::Arc};

use douane_proto::{
    mtls::MtlsMode,
    policy::{Policy, Scope, Trust},
    resource::{AuthorizationPolicy, Kind, Location, PeerAuthentication, Resource, ResourceError},
    wire,
};
use serde::Serialize;

use super::{
    advice::advise,
    cover::{self, Rule},
    prefix::{self, Operation},
    selection,
};
use crate::policy::{asked::Mesh, load::Loaded};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is refused, or does something else than it says.
    Error,
    /// It surely is not meant.
    Warning,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Its line, counted from 1.
    pub line: u32,
    /// How bad it is.
    pub severity: Severity,
    /// `Kind namespace/name`, as far as it is known.
    pub subject: Option<String>,
    /// What it is, and how to mend it.
    pub what: String,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// How many errors.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// By file and line.
    pub findings: Vec<Finding>,
}

/// What is known of the mesh that the laws are for.
#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    resources: &'a [Resource],
    mesh: &'a Mesh,
}

/// Looks at everything. `providers`: are the extension providers of the mesh known?
#[must_use]
pub fn lint(loaded: &Loaded, mesh: &Mesh, providers: Providers) -> Findings {
    let mut findings: Vec<Finding> = loaded.errors.iter().map(refused).collect();
    let resources = &loaded.resources;
    let context = Context { resources, mesh };
    for resource in resources {
        findings.extend(twins(resource, resources));
        match &resource.kind {
            Kind::AuthorizationPolicy(law) => policy(resource, law, context, providers, &mut findings),
            Kind::PeerAuthentication(law) => peer(resource, law, context, &mut findings),
            Kind::RequestAuthentication(law) => {
                findings.extend(law.notes.iter().map(|note| warning(resource, note.line, &note.value)));
                findings.extend(context.selects_nothing(resource, &law.attachment.scope));
            }
            _ => {}
        }
    }
    findings.extend(shadows(context));
    findings.extend(prefixes(context));
    findings.sort();
    findings.dedup();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    Findings { errors: count(Severity::Error), warnings: count(Severity::Warning), findings }
}

impl Context<'_> {
    fn selects_nothing(self, resource: &Resource, scope: &Scope) -> Option<Finding> {
        let what = selection::selects_nothing(scope, self.resources, &self.mesh.law.root_namespace)?;
        Some(warning(resource, resource.location.line, &what))
    }
}

/// Is it known whom CUSTOM policies may ask?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Providers {
    /// A mesh configuration was given.
    Known,
    /// None was.
    Unknown,
}

impl Findings {
    /// For a human.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { file, line, severity, subject, what } in &self.findings {
            let severity = if *severity == Severity::Error { "error" } else { "warning" };
            let subject = subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
            text.push_str(&format!("{file}:{line}: {severity}: {subject}{what}\n"));
        }
        text.push_str(&format!("{}, {}\n", counted(self.errors, "error"), counted(self.warnings, "warning")));
        text
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn refused(error: &ResourceError) -> Finding {
    Finding {
        file: error.location.file.display().to_string(),
        line: error.location.line,
        severity: Severity::Error,
        subject: error.subject.clone(),
        what: format!("{}; {}", error.what, error.mend),
    }
}

fn warning(resource: &Resource, line: u32, what: &str) -> Finding {
    Finding {
        file: resource.location.file.display().to_string(),
        line,
        severity: Severity::Warning,
        subject: Some(format!("{} {}", resource.kind.name(), resource.metadata.key())),
        what: what.to_owned(),
    }
}

fn policy(
    resource: &Resource,
    law: &AuthorizationPolicy,
    context: Context<'_>,
    providers: Providers,
    findings: &mut Vec<Finding>,
) {
    let Context { mesh, .. } = context;
    findings.extend(law.notes.iter().map(|note| warning(resource, note.line, &note.value)));
    for (rule, what) in advise(&law.policy) {
        findings.push(warning(resource, rule_line(resource, law, rule), &what));
    }
    let trust = Trust { local: &mesh.trust_domain, aliases: &mesh.aliases };
    for (line, what) in engine_warnings(resource, law, trust) {
        let found = warning(resource, line, &what);
        // It looks as if it allowed or denied somebody, and does not.
        let is_error = what.contains("spiffe://");
        findings.push(Finding { severity: if is_error { Severity::Error } else { found.severity }, ..found });
    }
    if law.attachment.targets.is_empty() {
        findings.extend(context.selects_nothing(resource, &law.attachment.scope));
    }
    let is_custom = law.policy.action() == wire::Action::Custom;
    let is_defined = mesh.law.providers.iter().any(|provider| provider.name == law.policy.provider);
    if is_custom && providers == Providers::Known && !is_defined {
        let name = &law.policy.provider;
        let what = format!("the mesh defines no extension provider {name:?}: what would ask it is denied");
        findings.push(warning(resource, resource.location.line, &what));
    }
}

// What the engine would log of the policy when it loads it, each with the line of its rule.
fn engine_warnings(resource: &Resource, law: &AuthorizationPolicy, trust: Trust<'_>) -> Vec<(u32, String)> {
    let before = format!("policy {}: ", resource.metadata.key());
    let head = wire::Policy { rules: Vec::new(), ..law.policy.clone() };
    let warnings = |rules| {
        let policy = wire::Policy { rules, ..head.clone() };
        let lines = Policy::in_doubt(policy).0.warnings(trust);
        lines
            .into_iter()
            .map(|line| line.strip_prefix(&before).unwrap_or(&line).to_owned())
            .collect::<Vec<_>>()
    };
    let of_policy = warnings(Vec::new());
    let mut all: Vec<_> = of_policy.iter().map(|what| (resource.location.line, what.clone())).collect();
    for (index, rule) in law.policy.rules.iter().enumerate() {
        let of_rule = warnings(vec![rule.clone()]).into_iter().filter(|what| !of_policy.contains(what));
        all.extend(of_rule.map(|what| (rule_line(resource, law, index), what)));
    }
    all
}

fn rule_line(resource: &Resource, law: &AuthorizationPolicy, rule: usize) -> u32 {
    law.rule_lines.get(rule).copied().unwrap_or(resource.location.line)
}

fn peer(resource: &Resource, law: &PeerAuthentication, context: Context<'_>, findings: &mut Vec<Finding>) {
    let ports = law.ports.iter().map(|(port, mode)| (format!("port {port}: "), *mode));
    for (place, mode) in [(String::new(), law.mode)].into_iter().chain(ports) {
        let what = match mode {
            Some(MtlsMode::Permissive) => {
                "PERMISSIVE takes plaintext from everybody; it is for a migration only"
            }
            Some(MtlsMode::Disable) => "DISABLE takes plaintext only: no peer has an identity",
            Some(MtlsMode::Strict) | None => continue,
        };
        findings.push(warning(resource, law.line, &format!("{place}{what}")));
    }
    if law.scope.namespace == context.mesh.law.root_namespace && !law.scope.selector.is_empty() {
        let what = "a selector in the root namespace selects nothing: the object is ignored";
        findings.push(warning(resource, resource.location.line, what));
    } else {
        findings.extend(context.selects_nothing(resource, &law.scope));
    }
}

// An object that is written twice.
fn twins(resource: &Resource, resources: &[Resource]) -> Option<Finding> {
    let is_twin = |other: &&Resource| {
        other.kind.name() == resource.kind.name()
            && other.metadata.key() == resource.metadata.key()
            && other.location != resource.location
    };
    let first = resources.iter().find(|other| is_twin(other) || other.location == resource.location)?;
    (first.location != resource.location).then(|| {
        let Location { file, line } = &first.location;
        warning(
            resource,
            resource.location.line,
            &format!("it is written at {}:{line} already; only one of them counts", file.display()),
        )
    })
}

// Path prefixes that are wider than the files show them to be meant.
fn prefixes(context: Context<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    for resource in context.resources {
        let Kind::AuthorizationPolicy(law) = &resource.kind else { continue };
        for (index, rule) in law.policy.rules.iter().enumerate() {
            let (scope, file) = (&law.attachment.scope, &resource.location.file);
            let line = rule_line(resource, law, index);
            all.extend(
                rule.to.iter().map(|operation| (resource, Operation { scope, operation, file, line })),
            );
        }
    }
    let operations: Vec<Operation<'_>> = all.iter().map(|(_, operation)| *operation).collect();
    let root = &context.mesh.law.root_namespace;
    let told = |(resource, own): &(&Resource, Operation<'_>)| {
        let lines = prefix::told(own, &operations, root).into_iter();
        lines.map(|what| warning(resource, own.line, &what)).collect::<Vec<_>>()
    };
    all.iter().flat_map(told).collect()
}

// Rules that change nothing, since another one says as much, or the opposite, already.
fn shadows(context: Context<'_>) -> Vec<Finding> {
    let mut rules: BTreeMap<bool, Vec<(Rule<'_>, &Resource, u32)>> = BTreeMap::new();
    for resource in context.resources {
        let Kind::AuthorizationPolicy(law) = &resource.kind else { continue };
        let is_deny = match law.policy.action() {
            wire::Action::Allow => false,
            wire::Action::Deny => true,
            wire::Action::Audit | wire::Action::Custom => continue,
        };
        if law.policy.dry_run || !law.attachment.targets.is_empty() {
            continue;
        }
        for (index, rule) in law.policy.rules.iter().enumerate() {
            let scope = &law.attachment.scope;
            let line = rule_line(resource, law, index);
            rules.entry(is_deny).or_default().push((Rule { scope, rule }, resource, line));
        }
    }
    let (allow, deny) = (rules.remove(&false).unwrap_or_default(), rules.remove(&true).unwrap_or_default());
    let root = &context.mesh.law.root_namespace;
    let place = |resource: &Resource, line: u32| {
        Location { file: Arc::clone(&resource.location.file), line }.to_string()
    };
    let mut findings = Vec::new();
    for same in [&allow, &deny] {
        for (index, (rule, resource, line)) in same.iter().enumerate() {
            // Of two equal ones, the later one is told.
            let wider = same.iter().enumerate().find(|(other, (wider, ..))| {
                *other != index
                    && cover::covers(wider, rule, root)
                    && (*other < index || !cover::covers(rule, wider, root))
            });
            if let Some((_, (_, by, by_line))) = wider {
                let what = format!("the rule changes nothing: {} says as much", place(by, *by_line));
                findings.push(warning(resource, *line, &what));
            }
        }
    }
    for (rule, resource, line) in &allow {
        if let Some((_, by, by_line)) = deny.iter().find(|(wider, ..)| cover::covers(wider, rule, root)) {
            let what = format!("the rule never allows: {} denies all of it", place(by, *by_line));
            findings.push(warning(resource, *line, &what));
        }
    }
    findings
}
