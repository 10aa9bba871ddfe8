//! One object of the API and what is in force of it.
//!
//! Pure. An object is whole whenever it is seen, unlike a file that is being written: a deletion counts at once, and what
//! is new and cannot be read denies what it meant to govern. What was good last stays while an edit cannot be read.

use douane_proto::resource::{Doubt, Resource, ResourceError};
use serde_json::Value;

use super::{
    document::{Document, Read},
    kinds::{Role, Watched},
};

/// One object of the API and what is in force of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    good: Option<Resource>,
    errors: Vec<ResourceError>,
    doubts: Vec<Doubt>,
    pub(crate) generation: i64,
    pub(crate) resource_version: String,
    pub(crate) conditions: Vec<Value>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Nothing that matters to us.
    Same,
    /// Nothing that matters to the mesh; what is noted about it is something else now.
    Noted,
    /// What is in force, or wrong, is something else now.
    Changed,
}

impl Object {
    /// An object that is seen for the first time.
    pub(crate) fn new(watched: &Watched, document: Document) -> Self {
        let mut object = Self {
            good: None,
            errors: Vec::new(),
            doubts: Vec::new(),
            generation: 0,
            resource_version: String::new(),
            conditions: Vec::new(),
        };
        object.see(watched, document);
        object
    }

    /// Takes in what it is now.
    pub(crate) fn see(&mut self, watched: &Watched, document: Document) -> Outcome {
        let read = document.read(watched);
        let is_noted = watched.role != Role::Core && self.resource_version != document.resource_version;
        self.generation = document.generation;
        self.resource_version = document.resource_version;
        self.conditions = document.conditions;
        let before = (self.good.take(), std::mem::take(&mut self.errors), std::mem::take(&mut self.doubts));
        match read {
            Read::Sound(resource) => self.good = Some(*resource),
            Read::Flawed { errors, doubts } => {
                self.errors = errors;
                self.good.clone_from(&before.0);
                if self.good.is_none() {
                    self.doubts = doubts;
                }
            }
        }
        let same = (&before.0, &before.1, &before.2) == (&self.good, &self.errors, &self.doubts);
        match (same, is_noted) {
            (false, _) => Outcome::Changed,
            (true, true) => Outcome::Noted,
            (true, false) => Outcome::Same,
        }
    }

    /// What is in force of it.
    pub(crate) fn resource(&self) -> Option<&Resource> {
        self.good.as_ref()
    }

    /// What is wrong with it now.
    pub(crate) fn errors(&self) -> &[ResourceError] {
        &self.errors
    }

    /// What must be denied because it cannot be read and never could.
    pub(crate) fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }
}
