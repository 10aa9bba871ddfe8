//! `metadata`: what names and describes an object of any kind.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    created::Created,
    flaws::{Flaws, Part},
};
use crate::{
    id::WorkloadId,
    yaml::{Cursor, Fields, Flaw, Manner, Node, Value, bounded},
};

/// The namespace of an object that names none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";
/// The annotation that names ports with commas between them.
const PRESERVE_CASE: &str = "douane.io/preserve-case";

/// The annotation of a `WorkloadEntry` that says who it is in another trust domain.
const IDENTITY: &str = "douane.io/identity";

/// What names and describes an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Its namespace; `default` where none is written, empty for kinds that live in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who made it, such as a pod's Deployment.
    pub owners: Vec<Owner>,
    /// When Kubernetes took it; absent in a file that an operator wrote.
    pub created: Option<Created>,
    /// Does Kubernetes wait for its end (`deletionTimestamp`)?
    pub ending: bool,
}

/// An entry of `ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its kind, such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Metadata {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The value of a label, or of an annotation where no such label is.
    #[must_use]
    pub fn label_or_annotation(&self, key: &str) -> Option<&str> {
        self.labels.get(key).or_else(|| self.annotations.get(key)).map(String::as_str)
    }

    /// The ports whose HTTP/1 keeps the names of headers as they were sent.
    #[must_use]
    pub fn preserve_case(&self) -> BTreeSet<u16> {
        self.annotations.get(PRESERVE_CASE).and_then(|text| ports(text)).unwrap_or_default()
    }

    /// Who it is, where that is said by name.
    #[must_use]
    pub fn identity(&self) -> Option<WorkloadId> {
        self.annotations.get(IDENTITY)?.parse().ok()
    }

    /// The metadata of a namespaced object.
    pub(super) fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let mut metadata = Self::read_fields(&fields)?;
        metadata.name = fields.required("name")?.object_name()?;
        end(fields)?;
        Ok(metadata)
    }

    /// The metadata of an object of the law, as far as it can be read; `None` where it does not name one.
    pub(super) fn read_law(at: &Cursor<'_>, flaws: &Flaws) -> Option<Self> {
        let part = Part::open(at, flaws);
        let name = part.required_as("name", Cursor::object_name);
        // Written, but unreadable: nobody knows where it belongs.
        let has_namespace = at.node().get("namespace").is_some();
        let namespace = match has_namespace {
            false => Some(DEFAULT_NAMESPACE.to_owned()),
            true => part.required_as("namespace", Cursor::object_name),
        };
        let metadata = Self {
            labels: part.read("labels", Cursor::text_map),
            annotations: part.read("annotations", Cursor::text_map),
            created: part
                .nullable("creationTimestamp")
                .and_then(|at| part.kept("creationTimestamp", created(&at))),
            ..Self::default()
        };
        part.pass_over(KNOWN);
        let unread = part.end();
        // A misspelt `namespace`, perhaps: nobody knows where it belongs.
        let namespace = namespace.filter(|_| has_namespace || unread.iter().all(|key| is_known(key)));
        Some(Self { name: name?, namespace: namespace?, ..metadata })
    }

    /// The metadata of a template, which has no name of its own.
    pub(super) fn read_template(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let metadata = Self::read_fields(&fields)?;
        fields.pass_over(&["name"]);
        end(fields)?;
        Ok(metadata)
    }

    fn read_fields(fields: &Fields<'_>) -> Result<Self, Flaw> {
        let namespace = match fields.optional("namespace")? {
            Some(namespace) => namespace.object_name()?,
            None => DEFAULT_NAMESPACE.to_owned(),
        };
        Ok(Self {
            namespace,
            name: String::new(),
            labels: fields.read("labels", |at| at.text_map())?,
            annotations: fields.read("annotations", |at| annotations(&at))?,
            owners: fields.read("ownerReferences", |at| at.list()?.iter().map(Owner::read).collect())?,
            created: fields.nullable("creationTimestamp").map(|at| created(&at)).transpose()?,
            ending: fields.nullable("deletionTimestamp").is_some(),
        })
    }
}

impl Owner {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.clone().manner(Manner::Lenient).fields()?;
        Ok(Self { kind: fields.required("kind")?.text()?, name: fields.required("name")?.text()? })
    }
}

// Those that mean something must be readable.
fn annotations(at: &Cursor<'_>) -> Result<BTreeMap<String, String>, Flaw> {
    let all = at.text_map()?;
    let flaw = |key: &str, what: String, mend: &str| -> Result<_, Flaw> {
        let entries = at.entries()?;
        let own = entries.iter().find(|(name, _)| *name == key).map_or(at, |(_, own)| own);
        Err(own.flaw(what, mend))
    };
    if let Some(text) = all.get(PRESERVE_CASE).filter(|text| ports(text).is_none()) {
        let what = format!("{PRESERVE_CASE} is {:?}, which is no list of ports", bounded(text));
        return flaw(PRESERVE_CASE, what, "write ports with commas between them, such as \"8080,9090\"");
    }
    if let Some(Err(error)) = all.get(IDENTITY).map(|text| text.parse::<WorkloadId>()) {
        let mend = "write one such as spiffe://partner.example/ns/shop/sa/orders";
        return flaw(IDENTITY, format!("{IDENTITY}: {error}"), mend);
    }
    Ok(all)
}

fn ports(text: &str) -> Option<BTreeSet<u16>> {
    let port = |text: &str| text.trim_ascii().parse().ok().filter(|port| *port != 0);
    text.split(',').map(port).collect()
}

// `null` is what `kubectl create --dry-run` writes.
fn created(at: &Cursor<'_>) -> Result<Created, Flaw> {
    let text = at.text()?;
    match Created::parse(&text) {
        Some(created) => Ok(created),
        None => Err(at.flaw(
            format!("{} is {:?}, which is no time", at.name(), bounded(&text)),
            "remove it, or write one such as 2026-01-31T12:00:00Z",
        )),
    }
}

/// The namespace of an object with this `metadata`, which names none: where another key may be a misspelt `namespace`,
/// nobody knows.
pub(super) fn unnamed_namespace(metadata: &Node) -> Option<String> {
    let Value::Map(entries) = &metadata.value else { return None };
    entries.iter().all(|entry| is_known(&entry.key)).then(|| DEFAULT_NAMESPACE.to_owned())
}

fn is_known(key: &str) -> bool {
    READ.contains(&key) || KNOWN.contains(&key)
}

// What an object of the law is read for.
const READ: &[&str] = &["name", "namespace", "labels", "annotations", "creationTimestamp"];

// Of no interest to the mesh.
const KNOWN: &[&str] = &[
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "managedFields",
    "ownerReferences",
    "selfLink",
];

// A misspelt `namespace` would move an object (and a law) elsewhere, so that unknown fields are refused for every kind.
fn end(fields: Fields<'_>) -> Result<(), Flaw> {
    fields.pass_over(KNOWN);
    fields.end_strictly()
}
