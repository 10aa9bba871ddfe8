//! Where the resources come from: folders of files, or the Kubernetes API.
//!
//! Both say the same things to whoever makes a mesh of them: what is in force, what is wrong, what is in doubt.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    folder::{Folders, Loaded, Scan},
    kept::Kept,
    kubernetes::Cluster,
    notice::Notices,
    settings::Marked,
};
use crate::{
    config::Config,
    kubernetes::{self, ClientError},
    state::StateFolder,
};

/// Why the resources cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A folder's path cannot be made absolute.
    #[error("find the folders of resources")]
    Folder(#[source] io::Error),
    /// There is no way to the Kubernetes API.
    #[error("reach the Kubernetes API")]
    Kubernetes(#[from] ClientError),
}

/// Where the resources come from.
pub(crate) enum Source {
    /// Folders of files, and what the kernel reports of them once somebody waits.
    Folders(Folders, Option<Notices>),
    Cluster(Box<Cluster>),
}

impl Source {
    /// What `config` names.
    pub(crate) async fn open(state: &StateFolder, config: &Config) -> Result<Self, SourceError> {
        if let Some(access) = &config.kubernetes {
            let client = kubernetes::client(access).await?;
            return Ok(Self::Cluster(Box::new(Cluster::watch(&client))));
        }
        let folders = Folders::new(&config.resources, Kept::new(state)).map_err(SourceError::Folder)?;
        Ok(Self::Folders(folders, None))
    }

    /// By what a pod with a sidecar is known.
    pub(crate) fn marked(&self) -> Marked {
        match self {
            Self::Folders(..) => Marked::ByLabel,
            Self::Cluster(_) => Marked::ByContainer,
        }
    }

    /// The folders, if these are some.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Folders(folders, _) => folders.paths().map(Path::to_owned).collect(),
            Self::Cluster(_) => Vec::new(),
        }
    }

    /// Waits until [`Self::scan`] is worth calling. Nothing is lost when this is dropped.
    pub(crate) async fn wait(&mut self) {
        match self {
            Self::Folders(folders, notices) => {
                let ripe = folders.ripe_at().map(|at| at.saturating_duration_since(Instant::now()));
                notices.get_or_insert_with(|| Notices::of(folders)).wait(ripe).await;
            }
            Self::Cluster(cluster) => cluster.listen().await,
        }
    }

    /// Looks for what changed.
    pub(crate) fn scan(&mut self, now: Instant) -> Scan {
        match self {
            Self::Folders(folders, _) => folders.scan(now),
            Self::Cluster(cluster) => cluster.scan(),
        }
    }

    /// Everything that is in force.
    pub(crate) fn loaded(&self) -> Loaded {
        match self {
            Self::Folders(folders, _) => folders.loaded(),
            Self::Cluster(cluster) => cluster.loaded(),
        }
    }

    /// Keeps on the disk what came into force, where nobody else keeps it.
    pub(crate) fn keep(&mut self) {
        if let Self::Folders(folders, _) = self {
            folders.keep();
        }
    }
}
