//! `metadata`: what names and describes an object of any kind.

use std::collections::BTreeMap;

use crate::yaml::{Cursor, Fields, Flaw, Manner};

/// The namespace of an object that names none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

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

    /// The metadata of a namespaced object.
    pub(super) fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let mut metadata = Self::read_fields(&fields)?;
        metadata.name = fields.required("name")?.object_name()?;
        end(fields)?;
        Ok(metadata)
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
            annotations: fields.read("annotations", |at| at.text_map())?,
            owners: fields.read("ownerReferences", |at| at.list()?.iter().map(Owner::read).collect())?,
        })
    }
}

impl Owner {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.clone().manner(Manner::Lenient).fields()?;
        Ok(Self { kind: fields.required("kind")?.text()?, name: fields.required("name")?.text()? })
    }
}

// A misspelt `namespace` would move an object (and a law) elsewhere, so that unknown fields are refused for every kind.
fn end(fields: Fields<'_>) -> Result<(), Flaw> {
    const KNOWN: &[&str] = &[
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "managedFields",
        "selfLink",
    ];
    fields.pass_over(KNOWN);
    fields.end_strictly()
}
