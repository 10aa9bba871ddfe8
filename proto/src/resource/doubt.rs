//! What can still be read of a document that cannot be read whole: whom it meant to govern.
//!
//! Where it is not sure, it says less, and less means that more is denied.

use std::collections::BTreeMap;

use super::{
    attachment,
    error::{Doubt, DoubtedLaw},
    object::{Kind, Resource},
};
use crate::yaml::{self, Cursor, Manner, Node, Part, Value, Work, bounded};

/// Kinds that forbid something.
pub(super) const LAWS: &[&str] = &["AuthorizationPolicy", "RequestAuthentication", CONNECTIONS];
/// The one of them that forbids connections only.
const CONNECTIONS: &str = "PeerAuthentication";
/// How many lines above the fault are given up to find a part that is valid YAML.
const MAX_LINES_GIVEN_UP: usize = 64;

/// `Kind namespace/name`, as far as it can be read.
pub(super) fn subject(node: &Node) -> Option<String> {
    let kind = node.get("kind")?.text()?;
    let metadata = node.get("metadata");
    let name = metadata.and_then(|metadata| metadata.get("name")?.text());
    let namespace = metadata.and_then(|metadata| metadata.get("namespace")?.text());
    Some(match (namespace, name) {
        (Some(namespace), Some(name)) => {
            format!("{} {}/{}", bounded(kind), bounded(namespace), bounded(name))
        }
        (None, Some(name)) => format!("{} {}", bounded(kind), bounded(name)),
        (_, None) => bounded(kind),
    })
}

impl Doubt {
    /// What is in doubt where a sound object of the law cannot be enforced, since something else is said in its place.
    /// `None` for what governs no sidecar.
    #[must_use]
    pub fn about(resource: &Resource) -> Option<Self> {
        let (law, scope) = match &resource.kind {
            Kind::AuthorizationPolicy(law) if law.attachment.targets.is_empty() => {
                (DoubtedLaw::Requests, &law.attachment.scope)
            }
            Kind::RequestAuthentication(law) if law.attachment.targets.is_empty() => {
                (DoubtedLaw::Requests, &law.attachment.scope)
            }
            Kind::PeerAuthentication(law) => (DoubtedLaw::Connections, &law.scope),
            _ => return None,
        };
        Some(Self {
            law,
            namespace: Some(scope.namespace.clone()),
            name: Some(resource.metadata.name.clone()),
            selector: Some(scope.selector.clone()),
        })
    }
}

/// The doubt about a document that is valid YAML.
pub(super) fn of_node(node: &Node) -> Option<Doubt> {
    may_be_law(node).then(|| doubt(node, Extent::Whole))
}

/// The doubt about a document that is no valid YAML from its line `fault` on: what its sound beginning says.
pub(super) fn of_text(text: &str, fault: u32, work: &mut Work) -> Option<Doubt> {
    let sound = usize::try_from(fault).unwrap_or(usize::MAX).saturating_sub(1);
    let lines: Vec<usize> = text.split_inclusive('\n').map(str::len).take(sound).collect();
    let mut length: usize = lines.iter().sum();
    for line in lines.iter().rev().take(MAX_LINES_GIVEN_UP) {
        if work.is_done() {
            break;
        }
        let part = Part { text: text.get(..length).unwrap_or_default(), before: 0 };
        match yaml::parse(part, work) {
            Ok(node) if matches!(node.value, Value::Map(_)) => {
                return may_be_law(&node).then(|| doubt(&node, Extent::Beginning));
            }
            _ => length = length.saturating_sub(*line),
        }
    }
    Some(Doubt::default())
}

#[derive(Clone, Copy, PartialEq)]
enum Extent {
    Whole,
    Beginning,
}

fn may_be_law(node: &Node) -> bool {
    let group = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
    match node.get("kind").and_then(Node::text) {
        Some(kind) => LAWS.contains(&kind) || group.starts_with("security.istio.io"),
        None => true,
    }
}

fn doubt(node: &Node, extent: Extent) -> Doubt {
    let metadata = node.get("metadata");
    let text = |key| Some(metadata?.get(key)?.text()?.to_owned());
    let namespace = match metadata {
        // Nothing follows that could still name one.
        Some(metadata) if metadata.get("namespace").is_none() && is_closed(node, "metadata", extent) => {
            matches!(metadata.value, Value::Map(_)).then(|| "default".to_owned())
        }
        _ => text("namespace"),
    };
    let law = match node.get("kind").and_then(Node::text) {
        Some(CONNECTIONS) => DoubtedLaw::Connections,
        _ => DoubtedLaw::Requests,
    };
    Doubt { law, namespace, name: text("name"), selector: selector(node, extent) }
}

fn selector(node: &Node, extent: Extent) -> Option<BTreeMap<String, String>> {
    let Some(spec) = node.get("spec") else {
        return (extent == Extent::Whole).then(BTreeMap::new);
    };
    match spec.get("selector") {
        // Labels that were cut off would only have narrowed it.
        Some(found) => attachment::selector(&Cursor::root(found, Manner::Strict)).ok(),
        None if extent == Extent::Whole && matches!(spec.value, Value::Map(_)) => Some(BTreeMap::new()),
        None => None,
    }
}

// A key that another one follows at the same level has its whole value.
fn is_closed(node: &Node, key: &str, extent: Extent) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    extent == Extent::Whole || entries.last().is_some_and(|last| last.key != key)
}
