//! The settings of the mesh that a question is about.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use douane_proto::id::TrustDomain;

use crate::{
    config::Config,
    policy::{asked::Mesh, lint::Providers},
};

#[derive(Args)]
pub(super) struct Settings {
    /// The control plane's configuration (as `douane ca --config`): trust domain, root namespace, extension providers.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// The trust domain of the mesh [default: cluster.local].
    #[arg(long)]
    trust_domain: Option<String>,
}

impl Settings {
    /// As the control plane would tell its sidecars.
    pub(super) fn mesh(&self) -> Result<Mesh> {
        let mut config = match &self.mesh_config {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                Config::parse(&text).with_context(|| path.display().to_string())?
            }
            None => Config::default(),
        };
        if let Some(domain) = &self.trust_domain {
            config.trust_domain = TrustDomain::parse(domain).context("--trust-domain")?;
        }
        let mesh = config.mesh();
        Ok(Mesh {
            trust_domain: mesh.trust_domain,
            aliases: mesh.trust_domain_aliases,
            normalization: mesh.path_normalization,
            law: config.law(),
        })
    }

    /// Without a configuration nobody knows whom the mesh may ask.
    pub(super) fn providers(&self) -> Providers {
        if self.mesh_config.is_some() { Providers::Known } else { Providers::Unknown }
    }
}
