//! What was read of a cluster: objects as the API gave them, by kind, each reading with its own success.
//!
//! Knows not how they were read (`kubernetes`), nor what they mean.

use std::collections::BTreeMap;

use serde_json::Value;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// All namespaces.
    Namespaces,
    /// All nodes.
    Nodes,
    /// Custom resource definitions.
    Definitions,
    /// Mutating webhook configurations.
    Mutating,
    /// Validating webhook configurations.
    Validating,
    /// Deployments of our own namespace.
    Deployments,
    /// Leases of our own namespace.
    Leases,
    /// `ConfigMap`s with our roots, of all namespaces.
    Roots,
    /// All pods.
    Pods,
    /// Policies of all kinds.
    Policies,
}

/// Something that whoever asks would have to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Such as `create`.
    pub verb: &'static str,
    /// API group; empty for the core.
    pub group: &'static str,
    /// Such as `deployments`.
    pub resource: &'static str,
    /// May they?
    pub allowed: bool,
}

/// What was read of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Our own clock, seconds since 1970.
    pub now: i64,
    /// `gitVersion` of the API server; why not, where it did not say.
    pub version: Option<Result<String, String>>,
    /// The API server's clock, seconds since 1970.
    pub server_time: Option<i64>,
    /// What whoever asks may do, of what an installation does.
    pub rights: Vec<Right>,
    /// Objects by kind; why not, where they could not be listed.
    pub objects: BTreeMap<Kind, Result<Vec<Value>, String>>,
    /// A pod that wants a sidecar, as the API server would store it, or why it would not.
    pub rehearsal: Option<Result<Value, String>>,
}

impl Facts {
    /// Those of a kind; none where they could not be listed.
    pub(super) fn of(&self, kind: Kind) -> &[Value] {
        self.objects.get(&kind).and_then(|read| read.as_ref().ok()).map_or(&[], Vec::as_slice)
    }

    /// What could not be listed, and why.
    pub(super) fn unread(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.objects.iter().filter_map(|(kind, read)| Some((*kind, read.as_ref().err()?.as_str())))
    }
}

/// Text at a path of names.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// What lies at a path of names.
pub(super) fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// A list at a path of names.
pub(super) fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub(super) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub(super) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels", key]).as_str()
}

/// A few names, for a line.
pub(super) fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
