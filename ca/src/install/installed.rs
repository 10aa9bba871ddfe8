//! What an earlier installation was told, as `kubectl get configmap douane-mesh -n douane-system -o yaml` prints it.
//!
//! Knows not how it got here (a file, a pipe).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{MeshFile, Wishes};
use crate::config::{Config, ConfigError};

/// Where the wishes stand.
const ANNOTATION: &str = "douane.io/installed";
/// The configuration file's name in the `ConfigMap`.
const MESH_FILE: &str = "mesh.yaml";

/// What lies in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What was wished.
    pub wishes: Wishes,
    /// The configuration file, perhaps edited since.
    pub mesh: MeshFile,
    /// The same, read.
    pub config: Config,
}

/// Why an earlier installation cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    /// Not what kubectl prints.
    #[error("this is not what `kubectl get configmap douane-mesh -n douane-system -o yaml` prints: {0}")]
    Other(String),
    /// Somebody took it away.
    #[error(
        "the configmap has no annotation {ANNOTATION}, or it is damaged ({0}); install anew with `douane install`"
    )]
    Wishes(String),
    /// Somebody took it away.
    #[error("the configmap has no {MESH_FILE}; install anew with `douane install`")]
    NoFile,
    /// Edited into something that does not start.
    #[error("{MESH_FILE} in the configmap cannot be used, mend it there first: {0}")]
    Mesh(#[from] ConfigError),
}

#[derive(Deserialize)]
struct ConfigMap {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Installed {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// [`InstalledError`]: what to mend.
    pub fn parse(text: &str) -> Result<Self, InstalledError> {
        let other = |why: &str| InstalledError::Other(why.to_owned());
        let map: ConfigMap =
            serde_saphyr::from_str(text).map_err(|error| InstalledError::Other(error.to_string()))?;
        if map.kind != "ConfigMap" || map.metadata.name != "douane-mesh" {
            return Err(other(&format!("it is {} {}", map.kind, map.metadata.name)));
        }
        let recorded = map.metadata.annotations.get(ANNOTATION);
        let recorded = recorded.ok_or_else(|| InstalledError::Wishes("it is missing".to_owned()))?;
        let wishes =
            serde_json::from_str(recorded).map_err(|error| InstalledError::Wishes(error.to_string()))?;
        let text = map.data.get(MESH_FILE).ok_or(InstalledError::NoFile)?;
        let mesh = MeshFile::parse(text)?;
        let config = Config::parse(text)?;
        Ok(Self { wishes, mesh, config })
    }
}
