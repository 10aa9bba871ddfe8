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
    notes::Note,
    notice::Notices,
    settings::Marked,
};
use crate::{config::Config, kubernetes::Client, state::StateFolder};

/// Why the resources cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("find the folders of resources")]
pub struct SourceError(#[source] io::Error);

/// Where the resources come from.
pub(crate) enum Source {
    /// Folders of files, and what the kernel reports of them once somebody waits.
    Folders(Folders, Option<Notices>),
    Cluster(Box<Cluster>),
}

impl Source {
    /// The cluster, if there is one; else the folders that `config` names.
    pub(crate) fn open(
        state: &StateFolder,
        config: &Config,
        cluster: Option<&Client>,
    ) -> Result<Self, SourceError> {
        if let Some(client) = cluster {
            return Ok(Self::Cluster(Box::new(Cluster::watch(client))));
        }
        let folders = Folders::new(&config.resources, Kept::new(state)).map_err(SourceError)?;
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

    /// What operators wrote in a cluster, with what is noted about it.
    pub(crate) fn notes(&self) -> Vec<Note> {
        match self {
            Self::Folders(..) => Vec::new(),
            Self::Cluster(cluster) => cluster.notes(),
        }
    }

    /// Keeps on the disk what came into force, where nobody else keeps it.
    pub(crate) fn keep(&mut self) {
        if let Self::Folders(folders, _) = self {
            folders.keep();
        }
    }
}
