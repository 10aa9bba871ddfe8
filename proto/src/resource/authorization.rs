//! `AuthorizationPolicy` of `security.istio.io`, as Istio defines it, to the message that a sidecar receives.
//!
//! Each field counts: what cannot be read is a flaw, and is named in the part of the message that it stood in. What a
//! rule means is not known here: the message is validated by [`crate::policy`], which names the field of a flaw; here it
//! gets its line.

use super::{
    attachment::{Attachment, filled_text},
    flaws::{Flaws, Part},
    metadata::Metadata,
};
use crate::{
    policy::{Policy, PolicyFlaw, Step},
    wire,
    yaml::{Cause, Cursor, Flaw, Located, Node, Value, bounded},
};

/// The annotation that has a policy decided for the record only.
const DRY_RUN: &str = "istio.io/dry-run";

/// An `AuthorizationPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizationPolicy {
    /// Whom it governs.
    pub attachment: Attachment,
    /// What it says, with the features that it requires. Of one that was read with flaws, what is left of it.
    pub policy: wire::Policy,
    /// The line of each rule.
    pub rule_lines: Vec<u32>,
    /// What works otherwise than its author may expect.
    pub notes: Vec<Located<String>>,
}

impl AuthorizationPolicy {
    /// Reads what follows the metadata.
    pub(super) fn read(spec: &Cursor<'_>, metadata: &Metadata, flaws: &Flaws) -> Self {
        let part = Part::open(spec, flaws);
        let attachment = Attachment::read(&part, &metadata.namespace);
        let rules = part.list("rules");
        let action = part.optional("action");
        let mut message = wire::Policy {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            action: read_action(&part, action.as_ref()).into(),
            provider: part.optional("provider").map(|at| provider(&part, &at)).unwrap_or_default(),
            rules: rules.iter().map(|at| rule(at, flaws)).collect(),
            ..wire::Policy::default()
        };
        let mut notes = attachment.notes();
        message.dry_run = match metadata.annotations.get(DRY_RUN).map(|text| (text, parse_bool(text))) {
            Some((_, Some(is_dry))) => is_dry,
            None => false,
            Some((text, None)) => {
                let value =
                    format!("the annotation {DRY_RUN} is {:?}: the policy is enforced", bounded(text));
                notes.push(Located { value, line: spec.line() });
                false
            }
        };
        message.unreadable = part.end();
        // It may have been a dry run, which allows nothing.
        if message.action() == wire::Action::Allow && flaws.concern("metadata.annotations") {
            message.unreadable.push("metadata.annotations".to_owned());
        }
        validate(&mut message, spec, flaws);
        let rule_lines = rules.iter().map(Cursor::line).collect();
        Self { attachment, policy: message, rule_lines, notes }
    }
}

// An action that is none may have been meant to deny.
fn read_action(part: &Part<'_, '_>, at: Option<&Cursor<'_>>) -> wire::Action {
    let Some(at) = at else {
        return if part.is_unreadable("action") { wire::Action::Deny } else { wire::Action::Allow };
    };
    let read = at.text().and_then(|text| match text.as_str() {
        "ALLOW" => Ok(wire::Action::Allow),
        "DENY" => Ok(wire::Action::Deny),
        "AUDIT" => Ok(wire::Action::Audit),
        "CUSTOM" => Ok(wire::Action::Custom),
        other => Err(at.flaw(
            format!("there is no action {:?}", bounded(other)),
            "write ALLOW, DENY, AUDIT or CUSTOM, or leave it out for ALLOW",
        )),
    });
    part.kept("action", read).unwrap_or(wire::Action::Deny)
}

fn provider(spec: &Part<'_, '_>, at: &Cursor<'_>) -> String {
    let part = Part::open(at, spec.flaws());
    let name = part.required_as("name", filled_text).unwrap_or_default();
    if !part.end().is_empty() {
        spec.doubt("provider");
    }
    name
}

// As Go's ParseBool, which Istio uses.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn rule(at: &Cursor<'_>, flaws: &Flaws) -> wire::Rule {
    let part = Part::open(at, flaws);
    let rule = wire::Rule {
        from: filled(&part, "from").iter().map(|at| entry(at, "source", flaws, source)).collect(),
        to: filled(&part, "to").iter().map(|at| entry(at, "operation", flaws, operation)).collect(),
        when: part.list("when").iter().map(|at| condition(at, flaws)).collect(),
        unreadable: Vec::new(),
    };
    wire::Rule { unreadable: part.end(), ..rule }
}

// An empty list would mean "any", which nobody who writes one expects of it.
fn filled<'a>(part: &Part<'a, '_>, key: &'static str) -> Vec<Cursor<'a>> {
    part.read(key, |at| match at.list()? {
        list if list.is_empty() => {
            Err(at.flaw(format!("{} is empty", at.name()), "remove it for any, or add what it must be"))
        }
        list => Ok(list),
    })
}

// `from: [{source: …}]`, `to: [{operation: …}]`. What stands beside the inner map belongs to it.
fn entry<T: Entry>(
    at: &Cursor<'_>,
    key: &'static str,
    flaws: &Flaws,
    read: impl Fn(&Part<'_, '_>) -> T,
) -> T {
    let outer = Part::open(at, flaws);
    let (mut read, mut unreadable) = match outer.required(key) {
        Some(inner) => {
            let part = Part::open(&inner, flaws);
            (read(&part), part.end())
        }
        None => (T::default(), Vec::new()),
    };
    unreadable.extend(outer.end());
    read.doubt(unreadable);
    read
}

trait Entry: Default {
    fn doubt(&mut self, unreadable: Vec<String>);
}

impl Entry for wire::Source {
    fn doubt(&mut self, unreadable: Vec<String>) {
        self.unreadable = unreadable;
    }
}

impl Entry for wire::Operation {
    fn doubt(&mut self, unreadable: Vec<String>) {
        self.unreadable = unreadable;
    }
}

// In Kubernetes' API an empty list of values is none.
fn texts(part: &Part<'_, '_>, key: &'static str) -> Vec<String> {
    part.read(key, |at| at.list()?.iter().map(Cursor::text).collect())
}

fn source(part: &Part<'_, '_>) -> wire::Source {
    wire::Source {
        principals: texts(part, "principals"),
        not_principals: texts(part, "notPrincipals"),
        namespaces: texts(part, "namespaces"),
        not_namespaces: texts(part, "notNamespaces"),
        ip_blocks: texts(part, "ipBlocks"),
        not_ip_blocks: texts(part, "notIpBlocks"),
        service_accounts: texts(part, "serviceAccounts"),
        not_service_accounts: texts(part, "notServiceAccounts"),
        request_principals: texts(part, "requestPrincipals"),
        not_request_principals: texts(part, "notRequestPrincipals"),
        remote_ip_blocks: texts(part, "remoteIpBlocks"),
        not_remote_ip_blocks: texts(part, "notRemoteIpBlocks"),
        trust_domains: texts(part, "trustDomains"),
        not_trust_domains: texts(part, "notTrustDomains"),
        unreadable: Vec::new(),
    }
}

fn operation(part: &Part<'_, '_>) -> wire::Operation {
    wire::Operation {
        hosts: texts(part, "hosts"),
        not_hosts: texts(part, "notHosts"),
        ports: texts(part, "ports"),
        not_ports: texts(part, "notPorts"),
        methods: texts(part, "methods"),
        not_methods: texts(part, "notMethods"),
        paths: texts(part, "paths"),
        not_paths: texts(part, "notPaths"),
        unreadable: Vec::new(),
    }
}

fn condition(at: &Cursor<'_>, flaws: &Flaws) -> wire::Condition {
    let part = Part::open(at, flaws);
    let condition = wire::Condition {
        key: part.required_as("key", Cursor::text).unwrap_or_default(),
        values: texts(&part, "values"),
        not_values: texts(&part, "notValues"),
        unreadable: Vec::new(),
    };
    wire::Condition { unreadable: part.end(), ..condition }
}

// What the reading itself complained about is not said twice.
fn validate(message: &mut wire::Policy, spec: &Cursor<'_>, flaws: &Flaws) {
    let found = match Policy::from_wire(message.clone()) {
        Ok(policy) => return *message = policy.to_wire(),
        Err(found) => found,
    };
    let placed = found.into_iter().map(|flaw| {
        let path = match flaw.place() {
            whole if whole.is_empty() => spec.name().to_owned(),
            place => format!("{}.{place}", spec.name()),
        };
        (place(flaw, &path, spec), path)
    });
    let unsaid: Vec<_> = placed.filter(|(_, path)| !flaws.concern(path)).collect();
    for (flaw, path) in unsaid {
        flaws.add(&path, flaw);
    }
}

// Finds the line of the field that a flaw names.
fn place(flaw: PolicyFlaw, path: &str, spec: &Cursor<'_>) -> Flaw {
    let mut line = spec.line();
    let mut node: Option<&Node> = Some(spec.node());
    for step in &flaw.path {
        node = match (step, node.map(|node| &node.value)) {
            (Step::Field(key), Some(Value::Map(entries))) => {
                let entry = entries.iter().find(|entry| entry.key == *key);
                line = entry.map_or(line, |entry| entry.line);
                entry.map(|entry| &entry.node)
            }
            (Step::Item(index), Some(Value::List(items))) => {
                let item = items.get(*index);
                line = item.map_or(line, |item| item.line);
                item
            }
            _ => None,
        };
    }
    let cause = if flaw.unsupported { Cause::Unsupported } else { Cause::Invalid };
    Flaw { line, what: format!("{path}: {}", flaw.what), mend: flaw.mend, cause }
}
