//! Where the pod stands in an object: in which kinds, and behind which fields.

use super::tree::Tree;

/// An object that makes pods, or is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maker {
    /// Its kind.
    pub(super) kind: String,
    /// Its namespace, if it says one.
    pub(super) namespace: Option<String>,
    /// Its name; what Kubernetes will make one of where there is none.
    pub(super) name: String,
    /// The fields behind which the pod stands; none: it is the object itself.
    pub(super) path: &'static [&'static str],
}

const POD: (&str, &[&str], &[&str]) = ("", &["Pod"], &[]);
const MAKERS: [(&str, &[&str], &[&str]); 6] = [
    POD,
    ("", &["ReplicationController"], &["spec", "template"]),
    ("", &["PodTemplate"], &["template"]),
    ("apps", &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"], &["spec", "template"]),
    ("batch", &["Job"], &["spec", "template"]),
    ("batch", &["CronJob"], &["spec", "jobTemplate", "spec", "template"]),
];

/// What sort of object it is: `None` where it makes no pods that we know of.
#[must_use]
pub(super) fn maker(object: &Tree) -> Option<Maker> {
    let kind = object.get("kind")?.text()?;
    let version = object.get("apiVersion")?.text()?;
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let (_, _, path) = MAKERS.iter().find(|(of, kinds, _)| *of == group && kinds.contains(&kind))?;
    let metadata = |field| object.at(&["metadata", field]).and_then(Tree::text).map(str::to_owned);
    Some(Maker {
        kind: kind.to_owned(),
        namespace: metadata("namespace"),
        name: metadata("name").or_else(|| metadata("generateName")).unwrap_or_default(),
        path,
    })
}

/// Is it a list of objects?
#[must_use]
pub(super) fn is_list(object: &Tree) -> bool {
    let kind = object.get("kind").and_then(Tree::text).unwrap_or_default();
    kind.ends_with("List") && matches!(object.get("items"), Some(Tree::List(_)))
}
