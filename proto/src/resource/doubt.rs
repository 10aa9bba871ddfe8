//! What can still be read of a document that cannot be read whole: whom it meant to govern.
//!
//! Where it is not sure, it says less, and less means that more is denied.

use std::collections::BTreeMap;

use super::{
    attachment,
    error::{Doubt, DoubtedLaw},
    metadata,
    object::{Kind, Resource},
};
use crate::yaml::{self, Cursor, Manner, Node, Part, SyntaxError, Value, Work, bounded};

/// Kinds that forbid something.
pub(super) const LAWS: &[&str] = &["AuthorizationPolicy", "RequestAuthentication", CONNECTIONS];
/// The one of them that forbids connections only.
const CONNECTIONS: &str = "PeerAuthentication";
/// The API group of all of them.
const GROUP: &str = "security.istio.io";
/// Objects of any kind in one document.
const LIST: &str = "List";
/// Keys that say what a document is and where it belongs.
const HEAD: &[&str] = &["apiVersion", "kind", "metadata", "namespace"];
/// Keys that lead to the labels of a selector.
const SELECTION: &[&str] = &["spec", "selector", "matchLabels"];
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

/// The doubt about a document that is no valid YAML, by `error`: what its sound beginning says.
pub(super) fn of_text(part: Part<'_>, error: &SyntaxError, work: &mut Work) -> Option<Doubt> {
    let text = part.text;
    let fault = error.line.saturating_sub(part.before);
    let sound = usize::try_from(fault).unwrap_or(usize::MAX).saturating_sub(1);
    let lines: Vec<usize> = text.split_inclusive('\n').map(str::len).take(sound).collect();
    let mut length: usize = lines.iter().sum();
    for line in lines.iter().rev().take(MAX_LINES_GIVEN_UP) {
        if work.is_done() {
            break;
        }
        let (beginning, rest) = text.split_at_checked(length).unwrap_or_default();
        match yaml::parse(Part { text: beginning, before: 0 }, work) {
            // What looks like another document may stand where its mark was misspelt.
            Ok(node) if matches!(node.value, Value::Map(_)) && !names_law(rest) => {
                return of_beginning(&node, error.repeated_key());
            }
            _ => length = length.saturating_sub(*line),
        }
    }
    Some(Doubt::default())
}

fn of_beginning(node: &Node, repeated: Option<&str>) -> Option<Doubt> {
    match repeated {
        // Two things are said, and nobody knows which one was meant.
        Some(key) if HEAD.contains(&key) => Some(Doubt::default()),
        _ if !may_be_law(node) => None,
        Some(key) => {
            let doubt = doubt(node, Extent::Beginning);
            let ends_in_selector = node.get("spec").is_some_and(|spec| !follows(spec, "selector"));
            let is_selection = SELECTION.contains(&key) || ends_in_selector;
            Some(Doubt { selector: doubt.selector.filter(|_| !is_selection), ..doubt })
        }
        None => Some(doubt(node, Extent::Beginning)),
    }
}

// In a line that is no comment.
fn names_law(text: &str) -> bool {
    let written = text.split(['\n', '\r']).filter(|line| !line.trim_start().starts_with('#'));
    written.into_iter().any(|line| {
        let line = line.to_ascii_lowercase();
        line.contains(GROUP) || LAWS.iter().any(|law| line.contains(&law.to_ascii_lowercase()))
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Extent {
    Whole,
    Beginning,
}

fn may_be_law(node: &Node) -> bool {
    let group = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
    match node.get("kind").and_then(Node::text) {
        Some(kind) => is_law(kind) || kind == LIST || group.to_ascii_lowercase().starts_with(GROUP),
        None => true,
    }
}

fn is_law(kind: &str) -> bool {
    LAWS.iter().any(|law| law.eq_ignore_ascii_case(kind))
}

fn doubt(node: &Node, extent: Extent) -> Doubt {
    let metadata = node.get("metadata");
    let kind = node.get("kind").and_then(Node::text);
    let text = |key| Some(metadata?.get(key)?.text()?.to_owned());
    let namespace = match metadata {
        // Nothing follows that could still name one. What holds other objects has no namespace of its own.
        Some(metadata) if metadata.get("namespace").is_none() && is_closed(node, "metadata", extent) => {
            metadata::unnamed_namespace(metadata).filter(|_| kind.is_none_or(is_law))
        }
        _ => text("namespace"),
    };
    let law = match kind {
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
    matches!(node.value, Value::Map(_)) && (extent == Extent::Whole || follows(node, key))
}

// Does another key follow this one?
fn follows(node: &Node, key: &str) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    entries.last().is_some_and(|last| last.key != key)
}
