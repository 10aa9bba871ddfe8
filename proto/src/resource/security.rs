//! `AuthorizationPolicy` and `PeerAuthentication` of `security.istio.io`, as Istio defines them.
//!
//! Each field counts: an unknown one is refused, also one without a value. What a rule means is not known here: the
//! message is validated by [`crate::policy`], which names the field of a flaw; here it gets its line.

use std::collections::BTreeMap;

use super::metadata::Metadata;
use crate::yaml::{Cause, Cursor, Fields, Flaw, Node, Value, bounded};
use crate::{
    policy::{Policy, PolicyFlaw, Scope, Step},
    wire,
};

/// An annotation that turns enforcement off; not implemented yet.
const DRY_RUN: &str = "istio.io/dry-run";

/// An `AuthorizationPolicy`. One that exists is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizationPolicy {
    /// Which pods it governs.
    pub scope: Scope,
    /// What it says.
    pub policy: Policy,
}

/// A `PeerAuthentication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Which pods it governs.
    pub scope: Scope,
    /// What it demands of connections to them.
    pub mode: MtlsMode,
}

/// The mode of mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MtlsMode {
    /// What the wider scope says; STRICT where none does.
    #[default]
    Unset,
    /// A connection without a peer's certificate is refused.
    Strict,
}

impl AuthorizationPolicy {
    pub(super) fn read(document: &Fields<'_>, metadata: &Metadata) -> Result<Self, Flaw> {
        refuse_dry_run(document, metadata)?;
        let spec = required_spec(document, "write `spec: {}` for a policy that allows nothing")?;
        let fields = spec.fields()?;
        for key in ["targetRef", "targetRefs", "provider"] {
            if let Some(at) = fields.optional(key)? {
                let what = format!("spec.{key} is not implemented yet");
                return Err(at.unsupported(what, "use spec.selector with action ALLOW or DENY"));
            }
        }
        let scope = read_scope(&fields, metadata)?;
        let action = fields.optional("action")?.map(|at| action(&at)).transpose()?;
        let rules = fields.read("rules", |at| at.list()?.iter().map(rule).collect::<Result<Vec<_>, _>>())?;
        fields.end()?;

        let message = wire::Policy {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            action: action.unwrap_or(wire::Action::Allow).into(),
            rules,
            ..wire::Policy::default()
        };
        let policy = Policy::from_wire(message).map_err(|flaws| first(flaws, &spec))?;
        Ok(Self { scope, policy })
    }
}

impl PeerAuthentication {
    pub(super) fn read(document: &Fields<'_>, metadata: &Metadata) -> Result<Self, Flaw> {
        let spec = required_spec(document, "write `spec: {mtls: {mode: STRICT}}`")?;
        let fields = spec.fields()?;
        if let Some(ports) = fields.optional("portLevelMtls")? {
            let what = "spec.portLevelMtls is not implemented yet: every port is STRICT";
            return Err(ports.unsupported(what, "remove it"));
        }
        let scope = read_scope(&fields, metadata)?;
        let mode = fields.read("mtls", |at| mtls(&at))?;
        fields.end()?;
        Ok(Self { scope, mode })
    }
}

fn refuse_dry_run(document: &Fields<'_>, metadata: &Metadata) -> Result<(), Flaw> {
    // As Go's ParseBool, which Istio uses: what is not true is enforced.
    let truths = ["1", "t", "T", "true", "TRUE", "True"];
    if !metadata.annotations.get(DRY_RUN).is_some_and(|value| truths.contains(&value.as_str())) {
        return Ok(());
    }
    let annotations = document.required("metadata")?.fields()?.required("annotations")?;
    let what = format!("the annotation {DRY_RUN} is not implemented yet");
    Err(annotations.unsupported(what, "remove it to have the policy enforced, or remove the policy"))
}

fn required_spec<'a>(document: &Fields<'a>, mend: &str) -> Result<Cursor<'a>, Flaw> {
    match document.optional("spec")? {
        Some(spec) => Ok(spec),
        None => Err(document.at().flaw("spec is missing; the file may be half written", mend)),
    }
}

fn read_scope(fields: &Fields<'_>, metadata: &Metadata) -> Result<Scope, Flaw> {
    let selector = fields.read("selector", |at| selector(&at))?;
    Ok(Scope { namespace: metadata.namespace.clone(), selector })
}

pub(super) fn selector(at: &Cursor<'_>) -> Result<BTreeMap<String, String>, Flaw> {
    let fields = at.fields()?;
    let Some(at) = fields.optional("matchLabels")? else {
        fields.end()?;
        return Ok(BTreeMap::new());
    };
    fields.end()?;
    let labels = at.text_map()?;
    match labels.iter().find(|(key, value)| key.is_empty() || key.contains('*') || value.contains('*')) {
        None => Ok(labels),
        Some((key, value)) => Err(at.flaw(
            format!("the label {:?}: {:?} cannot be selected", bounded(key), bounded(value)),
            "a selector compares whole labels: no wildcards, no empty key",
        )),
    }
}

fn action(at: &Cursor<'_>) -> Result<wire::Action, Flaw> {
    match at.text()?.as_str() {
        "ALLOW" => Ok(wire::Action::Allow),
        "DENY" => Ok(wire::Action::Deny),
        other @ ("AUDIT" | "CUSTOM") => {
            Err(at.unsupported(format!("action {other} is not implemented yet"), "write ALLOW or DENY"))
        }
        other => Err(at.flaw(format!("there is no action {:?}", bounded(other)), "write ALLOW or DENY")),
    }
}

fn mtls(at: &Cursor<'_>) -> Result<MtlsMode, Flaw> {
    let fields = at.fields()?;
    let mode = fields.read("mode", |at| match at.text()?.as_str() {
        "UNSET" => Ok(MtlsMode::Unset),
        "STRICT" => Ok(MtlsMode::Strict),
        other @ ("PERMISSIVE" | "DISABLE") => {
            Err(at.unsupported(format!("mode {other} is not implemented yet"), "write STRICT"))
        }
        other => Err(at.flaw(format!("there is no mode {:?}", bounded(other)), "write STRICT")),
    })?;
    fields.end()?;
    Ok(mode)
}

fn rule(at: &Cursor<'_>) -> Result<wire::Rule, Flaw> {
    let fields = at.fields()?;
    let rule = wire::Rule {
        from: fields.read("from", |at| entries(&at, "source", source))?,
        to: fields.read("to", |at| entries(&at, "operation", operation))?,
        when: fields.read("when", |at| filled(&at)?.iter().map(condition).collect())?,
        ..wire::Rule::default()
    };
    fields.end()?;
    Ok(rule)
}

// `from: [{source: …}]`, `to: [{operation: …}]`.
fn entries<T>(
    at: &Cursor<'_>,
    key: &'static str,
    read: impl Fn(&Fields<'_>) -> Result<T, Flaw>,
) -> Result<Vec<T>, Flaw> {
    let one = |at: &Cursor<'_>| {
        let entry = at.fields()?;
        let inner = entry.required(key)?;
        entry.end()?;
        let fields = inner.fields()?;
        let read = read(&fields)?;
        fields.end()?;
        Ok(read)
    };
    filled(at)?.iter().map(one).collect()
}

// An empty list would mean "any", which nobody who writes one expects of it.
fn filled<'a>(at: &Cursor<'a>) -> Result<Vec<Cursor<'a>>, Flaw> {
    match at.list()? {
        list if list.is_empty() => {
            Err(at.flaw(format!("{} is empty", at.name()), "remove it for any, or add what it must be"))
        }
        list => Ok(list),
    }
}

fn texts(fields: &Fields<'_>, key: &'static str) -> Result<Vec<String>, Flaw> {
    fields.read(key, |at| filled(&at)?.iter().map(Cursor::text).collect())
}

fn refuse(fields: &Fields<'_>, keys: &[&'static str]) -> Result<(), Flaw> {
    for key in keys {
        if let Some(at) = fields.optional(key)? {
            let what = format!("{} is not implemented yet", at.name());
            return Err(at.unsupported(what, "remove it, or the rule"));
        }
    }
    Ok(())
}

fn source(fields: &Fields<'_>) -> Result<wire::Source, Flaw> {
    refuse(
        fields,
        &[
            "requestPrincipals",
            "notRequestPrincipals",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
            "trustDomains",
            "notTrustDomains",
        ],
    )?;
    Ok(wire::Source {
        principals: texts(fields, "principals")?,
        not_principals: texts(fields, "notPrincipals")?,
        namespaces: texts(fields, "namespaces")?,
        not_namespaces: texts(fields, "notNamespaces")?,
        ip_blocks: texts(fields, "ipBlocks")?,
        not_ip_blocks: texts(fields, "notIpBlocks")?,
        service_accounts: texts(fields, "serviceAccounts")?,
        not_service_accounts: texts(fields, "notServiceAccounts")?,
        ..wire::Source::default()
    })
}

fn operation(fields: &Fields<'_>) -> Result<wire::Operation, Flaw> {
    Ok(wire::Operation {
        hosts: texts(fields, "hosts")?,
        not_hosts: texts(fields, "notHosts")?,
        ports: texts(fields, "ports")?,
        not_ports: texts(fields, "notPorts")?,
        methods: texts(fields, "methods")?,
        not_methods: texts(fields, "notMethods")?,
        paths: texts(fields, "paths")?,
        not_paths: texts(fields, "notPaths")?,
        ..wire::Operation::default()
    })
}

fn condition(at: &Cursor<'_>) -> Result<wire::Condition, Flaw> {
    let fields = at.fields()?;
    let condition = wire::Condition {
        key: fields.required("key")?.text()?,
        values: texts(&fields, "values")?,
        not_values: texts(&fields, "notValues")?,
        ..wire::Condition::default()
    };
    fields.end()?;
    Ok(condition)
}

fn first(flaws: Vec<PolicyFlaw>, spec: &Cursor<'_>) -> Flaw {
    match flaws.into_iter().next() {
        Some(flaw) => place(flaw, spec),
        None => spec.flaw("it is invalid", "compare it with the semantics of AuthorizationPolicy"),
    }
}

// Finds the line of the field that a flaw names.
fn place(flaw: PolicyFlaw, spec: &Cursor<'_>) -> Flaw {
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
    Flaw { line, what: format!("spec.{}: {}", flaw.place(), flaw.what), mend: flaw.mend, cause }
}
