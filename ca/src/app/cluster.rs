//! What the control plane tells the cluster that it lives in, by the rights of its service account: its roots, and what it
//! makes of each policy.
//!
//! Knows not how the cluster is read (`discovery`).

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authority::Authority,
    config::Config,
    discovery::Discovery,
    inject::kubernetes::keep_known,
    kubernetes::{self, Client},
    policy::asked::Mesh,
    status,
};

/// The cluster that the mesh is read from; `None` where it comes from folders.
pub(super) struct Cluster {
    client: Client,
    mesh: Arc<Mesh>,
    /// Is there a webhook, whose callers must know our roots?
    webhook: Webhook,
}

enum Webhook {
    Served,
    Absent,
}

impl Cluster {
    pub(super) async fn open(config: &Config, mesh: &Arc<Mesh>) -> Result<Option<Self>> {
        let Some(access) = &config.kubernetes else { return Ok(None) };
        let client = kubernetes::client(access).await.context("find a way to the Kubernetes API")?;
        let webhook = if config.webhook.is_some() { Webhook::Served } else { Webhook::Absent };
        Ok(Some(Self { client, mesh: Arc::clone(mesh), webhook }))
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn start(
        self,
        authority: &Authority,
        discovery: &Discovery,
        tasks: &TaskTracker,
        halt: &CancellationToken,
    ) {
        let seen = (discovery.notes(), discovery.index());
        tasks.spawn(status::keep_told(self.client.clone(), seen, self.mesh, halt.clone()));
        if let Webhook::Served = self.webhook {
            tasks.spawn(keep_known(self.client, authority.bundle(), halt.clone()));
        }
    }
}

/// What policies are held against.
pub(super) fn mesh(config: &Config) -> Mesh {
    let mesh = config.mesh();
    Mesh {
        trust_domain: mesh.trust_domain,
        aliases: mesh.trust_domain_aliases,
        normalization: mesh.path_normalization,
        law: config.law(),
    }
}
