//! An object of the API as the document that an operator could have written: only what is read, without what Kubernetes
//! notes about it.
//!
//! Pure. Knows not what it means ([`douane_proto::resource`] reads it), nor what becomes of it (`object`).

use std::path::Path;

use douane_proto::{
    resource::{Doubt, DoubtedLaw, Kind, Location, Reading, Resource, ResourceError, read_law},
    yaml::{Cause, Node},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{DynamicObject, ObjectMeta};
use serde_json::{Map, Value, json};

use super::kinds::{Role, Watched};

/// Other people's annotations mean nothing to us, and some are large (`kubectl`'s last applied configuration).
const OURS: &str = "douane.io/";

/// `(namespace, name)`; the namespace is empty for kinds that live in none.
pub(crate) type Key = (String, String);

/// An object of the API, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    pub(crate) key: Key,
    /// Counts the changes of its spec.
    pub(crate) generation: i64,
    pub(crate) resource_version: String,
    /// `status.conditions` of what an operator wrote, as they stand there.
    pub(crate) conditions: Vec<Value>,
    json: Value,
}

/// What was read of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Read {
    /// All of it.
    Sound(Box<Resource>),
    /// It cannot be read: why, and what it meant to govern.
    Flawed { errors: Vec<ResourceError>, doubts: Vec<Doubt> },
}

impl Document {
    /// Takes an object of this kind; `None` for one without a name, which the API does not have.
    pub(crate) fn new(watched: &Watched, object: DynamicObject) -> Option<Self> {
        let DynamicObject { metadata, data, .. } = object;
        let key = key(&metadata)?;
        let mut json = match data {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let conditions = match watched.role {
            Role::Law | Role::Entry => conditions(json.remove("status")),
            Role::Core => Vec::new(),
        };
        let version = watched.versions.first().copied().unwrap_or_default();
        let group = watched.group;
        let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        json.insert("apiVersion".to_owned(), version.into());
        json.insert("kind".to_owned(), watched.kind.into());
        json.insert("metadata".to_owned(), described(&metadata));
        Some(Self {
            key,
            generation: metadata.generation.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            conditions,
            json: Value::Object(json),
        })
    }

    /// Reads it.
    pub(crate) fn read(&self, watched: &Watched) -> Read {
        let place = place(watched, &self.key);
        let Some(node) = Node::from_json(&self.json) else {
            return self.too_large(watched, &place);
        };
        let Reading { resource, flaws } = read_law(&node, Path::new(&place));
        match resource {
            Some(resource) if flaws.is_empty() => Read::Sound(Box::new(lean(resource))),
            _ => Read::Flawed {
                doubts: flaws.iter().find_map(|flaw| flaw.doubt.clone()).into_iter().collect(),
                errors: flaws,
            },
        }
    }

    fn too_large(&self, watched: &Watched, place: &str) -> Read {
        let (namespace, name) = self.key.clone();
        let doubt = Doubt {
            law: if watched.kind == "PeerAuthentication" {
                DoubtedLaw::Connections
            } else {
                DoubtedLaw::Requests
            },
            namespace: Some(namespace),
            name: Some(name),
            selector: None,
        };
        let doubts = if watched.role == Role::Law { vec![doubt] } else { Vec::new() };
        let error = ResourceError {
            location: Location { file: Path::new(place).into(), line: 0 },
            subject: Some(place.to_owned()),
            what: "it is nested too deep, or too large".to_owned(),
            mend: "split it into several objects".to_owned(),
            cause: Cause::Bound,
            doubt: doubts.first().cloned(),
        };
        Read::Flawed { errors: vec![error], doubts }
    }
}

/// `(namespace, name)` of an object.
pub(crate) fn key(metadata: &ObjectMeta) -> Option<Key> {
    Some((metadata.namespace.clone().unwrap_or_default(), metadata.name.clone()?))
}

/// `Kind namespace/name`, which takes the place of file and line.
pub(crate) fn place(watched: &Watched, (namespace, name): &Key) -> String {
    match namespace.as_str() {
        "" => format!("{} {name}", watched.kind),
        namespace => format!("{} {namespace}/{name}", watched.kind),
    }
}

fn conditions(status: Option<Value>) -> Vec<Value> {
    match status.and_then(|mut status| Some(status.get_mut("conditions")?.take())) {
        Some(Value::Array(conditions)) => conditions,
        _ => Vec::new(),
    }
}

fn described(metadata: &ObjectMeta) -> Value {
    let mut described = Map::new();
    let mut say = |key: &str, value: Value| described.insert(key.to_owned(), value);
    say("name", json!(metadata.name));
    if let Some(namespace) = &metadata.namespace {
        say("namespace", json!(namespace));
    }
    if let Some(labels) = &metadata.labels {
        say("labels", json!(labels));
    }
    if let Some(annotations) = &metadata.annotations {
        let means: Map<_, _> = annotations
            .iter()
            .filter(|(key, _)| key.starts_with(OURS))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        say("annotations", Value::Object(means));
    }
    if let Some(created) = &metadata.creation_timestamp {
        say("creationTimestamp", json!(created));
    }
    if let Some(deleted) = &metadata.deletion_timestamp {
        say("deletionTimestamp", json!(deleted));
    }
    if let Some(owners) = &metadata.owner_references {
        let owner = |owner: &OwnerReference| json!({"kind": owner.kind, "name": owner.name});
        say("ownerReferences", owners.iter().map(owner).collect());
    }
    Value::Object(described)
}

// What a container is started with is nobody's business here, and most of what a pod says.
fn lean(mut resource: Resource) -> Resource {
    if let Kind::Pod(pod) = &mut resource.kind {
        for container in pod.spec.containers.iter_mut().chain(&mut pod.spec.init_containers) {
            container.image = None;
            container.command.clear();
            container.args.clear();
            container.env.clear();
            container.working_dir = None;
        }
    }
    resource
}
