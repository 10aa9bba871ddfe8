//! What the launcher hands to the lab's own processes: one JSON value in the environment.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What a lab shall do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// This lab's own folder.
    pub state: PathBuf,
    /// What to run once the daemon stands.
    pub job: Job,
    /// How the lab is made.
    pub options: Options,
}

/// What the daemon runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Job {
    /// `lab up`: stay until a signal.
    Up,
    /// `lab demo`: play the script.
    Demo(Demo),
}

/// How the demo speaks and ends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Demo {
    /// Print an array of results instead of lines.
    pub json: bool,
    /// Leave the lab up afterwards.
    pub stay: bool,
}

/// How a lab is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// The folder of YAML.
    pub resources: PathBuf,
    /// Watch that folder itself, or a private copy of it.
    pub folder: Folder,
    /// The life of leaf certificates.
    pub leaf_ttl: Option<Duration>,
    /// Where logs go; the lab's own folder by default.
    pub log_dir: Option<PathBuf>,
    /// Where sidecars send spans: a sink inside the lab.
    pub sink: Option<String>,
    /// More variables of each sidecar.
    pub sidecar_env: Vec<(String, String)>,
    /// A unix socket that leads out of the lab to the collector of `--otlp`.
    pub relay: Option<PathBuf>,
}

/// Whose files the control plane watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Folder {
    /// The operator's own.
    InPlace,
    /// A copy under the lab's folder, for scripts that edit it.
    Copy,
}

/// The variable that carries a [`Spec`].
pub const VARIABLE: &str = "DOUANE_LAB_SPEC";

impl Spec {
    /// What `--lab` calls it: the number of its launcher's process, which names its folder.
    #[must_use]
    pub fn id(&self) -> Cow<'_, str> {
        self.state.file_name().unwrap_or_default().to_string_lossy()
    }

    /// Reads it where the launcher left it.
    ///
    /// # Errors
    /// This process was not started by a launcher.
    pub fn from_environment() -> Result<Self> {
        let text = std::env::var(VARIABLE).context("this role is started by the lab itself, not by hand")?;
        serde_json::from_str(&text).context("read the lab's own specification")
    }

    /// For the environment.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).context("the lab's paths must be UTF-8")
    }
}
