//! What an operator wrote in a cluster, and what was made of it: whoever tells the author reads it here.
//!
//! Knows not what an author is told, nor how (`status`).

use douane_proto::resource::{Location, Resource, ResourceError};
use serde_json::Value;

/// Everything that operators wrote in a cluster.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// By kind, namespace and name; none while it is not known of every kind what there is.
    pub written: Vec<Note>,
    /// What contradicts something else, and is not in force for it.
    pub left_out: Vec<LeftOut>,
}

/// An object that an operator wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// `AuthorizationPolicy`.
    pub kind: &'static str,
    /// `authorizationpolicies`.
    pub plural: &'static str,
    /// `security.istio.io`.
    pub group: &'static str,
    /// Of which one is served.
    pub versions: &'static [&'static str],
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Counts the changes of its spec.
    pub generation: i64,
    /// Of the API, for a change of just this state.
    pub resource_version: String,
    /// `status.conditions`, whoever wrote them.
    pub conditions: Vec<Value>,
    /// What is in force of it: of an older generation, while this one cannot be read.
    pub resource: Option<Resource>,
    /// Why this generation cannot be read.
    pub errors: Vec<ResourceError>,
}

/// An object, or a part of it, that contradicts something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct LeftOut {
    /// Where it was written.
    pub place: Location,
    /// What contradicts it, and what becomes of it.
    pub what: String,
}
