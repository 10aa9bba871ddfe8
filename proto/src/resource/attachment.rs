//! What an object of the law is attached to: pods by a selector, or a gateway, waypoint or service by `targetRefs`.
//!
//! What has `targetRefs` never governs an ordinary sidecar; it is kept, so that its author can be told.

use std::collections::BTreeMap;

use super::flaws::Part;
use crate::{
    policy::Scope,
    yaml::{Cursor, Flaw, Located, Manner, bounded},
};

/// Istio's bound.
const MAX_TARGETS: usize = 16;
/// What Istio attaches a law to: group and kind.
const KNOWN: &[(&str, &str)] = &[
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
];

/// What an object of the law is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// The pods that it governs, where it has no targets.
    pub scope: Scope,
    /// Gateways, waypoints and services; an object that has some governs no sidecar.
    pub targets: Vec<Located<Target>>,
}

/// An entry of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Its API group; empty for Kubernetes' own.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name, in the object's own namespace.
    pub name: String,
}

impl Attachment {
    /// Reads `selector`, `targetRef` and `targetRefs` of a `spec` in this namespace.
    pub(super) fn read(spec: &Part<'_, '_>, namespace: &str) -> Self {
        let selector_at = spec.optional("selector");
        let selector = spec.read("selector", selector);
        let one = spec.optional("targetRef");
        let many = spec.list("targetRefs");
        let written = || one.iter().chain(&many);
        let mut targets: Vec<Located<Target>> =
            written().map(|at| Located { value: target(spec, at, namespace), line: at.line() }).collect();

        if let Some(at) = many.get(MAX_TARGETS) {
            spec.refuse(
                "targetRefs",
                at.flaw(format!("{} targetRefs are too many", many.len()), "16 are the most"),
            );
        }
        if let (Some(at), Some(_)) = (&one, many.first()) {
            let what = "targetRef and targetRefs cannot stand together";
            spec.refuse("targetRef", at.flaw(what, "move the one into the list"));
        }
        if let (Some(at), false) = (&selector_at, targets.is_empty()) {
            let what = "selector and targetRefs cannot stand together";
            spec.refuse("selector", at.flaw(what, "keep the one that is meant"));
            // It is not known whether pods are meant; then they are.
            targets.clear();
        }
        Self { scope: Scope { namespace: namespace.to_owned(), selector }, targets }
    }

    /// Are both attached to the same, wherever they were written?
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let targets = |of: &Self| -> Vec<Target> { of.targets.iter().map(|at| at.value.clone()).collect() };
        self.scope == other.scope && targets(self) == targets(other)
    }

    /// What its author may not expect of its targets.
    pub(super) fn notes(&self) -> Vec<Located<String>> {
        let known = |target: &Target| KNOWN.contains(&(target.group.as_str(), target.kind.as_str()));
        let stranger = self.targets.iter().find(|target| !known(target));
        let unknown = stranger.map(|target| Located {
            value: format!("nothing attaches to a target of kind {:?}", bounded(&target.kind)),
            line: target.line,
        });
        let first = self.targets.first().map(|target| Located {
            value: "it has targetRefs and governs no sidecar; use a selector for pods".to_owned(),
            line: target.line,
        });
        first.into_iter().chain(unknown).collect()
    }
}

fn target(spec: &Part<'_, '_>, at: &Cursor<'_>, own_namespace: &str) -> Target {
    let part = Part::open(at, spec.flaws());
    let target = Target {
        group: part.read("group", Cursor::text),
        kind: part.required_as("kind", filled_text).unwrap_or_default(),
        name: part.required_as("name", filled_text).unwrap_or_default(),
    };
    if let Some(at) = part.optional("namespace")
        && !at.text().is_ok_and(|namespace| namespace.is_empty() || namespace == own_namespace)
    {
        let what = format!("{} must not lead into another namespace", at.name());
        part.refuse("namespace", at.flaw(what, "remove it; write the policy where its target is"));
    }
    if !part.end().is_empty() {
        spec.doubt("targetRefs");
    }
    target
}

/// A text that says something.
pub(super) fn filled_text(at: &Cursor<'_>) -> Result<String, Flaw> {
    match at.text()? {
        text if text.is_empty() => Err(at.flaw(format!("{} is empty", at.name()), "write its value")),
        text => Ok(text),
    }
}

/// The labels of a `selector`; `{}` is none.
pub(super) fn selector(at: &Cursor<'_>) -> Result<BTreeMap<String, String>, Flaw> {
    let fields = at.clone().manner(Manner::Strict).fields()?;
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
