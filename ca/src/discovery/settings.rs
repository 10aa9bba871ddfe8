//! What a mesh is put together with besides its resources.

use douane_proto::{law::LawSettings, snapshot::MeshSettings};

/// What a mesh is put together with besides its resources.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) mesh: MeshSettings,
    /// What the names of services end in, after `.svc.`.
    pub(crate) cluster_domain: String,
    pub(crate) law: LawSettings,
    pub(crate) marked: Marked,
}

/// By what a pod with a sidecar is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marked {
    /// Its label: whoever runs the files gives a sidecar to those that ask.
    ByLabel,
    /// Its container: in a cluster a pod that asks may have been let in without one.
    ByContainer,
}
