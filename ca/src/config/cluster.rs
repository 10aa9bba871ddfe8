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
}
