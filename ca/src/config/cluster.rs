//! How the Kubernetes API is reached.

use std::path::PathBuf;

use serde::Deserialize;

/// How the Kubernetes API is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Kubernetes {
    /// A kubeconfig; without one, the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; its current one where none is written.
    pub context: Option<String>,
    /// Where the authority's state lies.
    pub state: StatePlace,
}

/// Where the authority's state lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StatePlace {
    /// In the state folder.
    #[default]
    Folder,
    /// In the Secret `douane-authority` of our own namespace, which several replicas share: one of them leads by a lease, and
    /// alone changes it. The state folder of each then holds only what it can lose.
    Secret,
}
