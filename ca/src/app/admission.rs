//! The listener of the admission webhook: our own certificate, which is renewed in memory, and what pods and policies are
//! judged by.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::doors;
use crate::{
    authority::Authority,
    config::{Config, Kubernetes},
    inject::{Terms, kubernetes::keep_known},
    kubernetes::{self, Client},
    metrics::Metrics,
    policy::asked::Mesh,
    tls::{Endpoint, Tls},
    webhook::{self, Bench},
};

/// The webhook, bound and not served yet.
pub(super) struct Admission {
    listener: TcpListener,
    endpoint: Arc<Endpoint>,
    bench: Bench,
    // Within a cluster: whom our roots are told to.
    cluster: Option<Client>,
}

impl Admission {
    pub(super) async fn bind(
        config: &Config,
        tls: &Arc<Tls>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>> {
        let Some(wanted) = &config.webhook else { return Ok(None) };
        // Outside of a cluster somebody else writes the caBundle.
        let cluster = match std::env::var_os("KUBERNETES_SERVICE_HOST") {
            Some(_) => {
                Some(kubernetes::client(config.kubernetes.as_ref().unwrap_or(&Kubernetes::default())).await?)
            }
            None => None,
        };
        let mesh = config.mesh();
        let mesh = Mesh {
            trust_domain: mesh.trust_domain,
            aliases: mesh.trust_domain_aliases,
            normalization: mesh.path_normalization,
            law: config.law(),
        };
        Ok(Some(Self {
            listener: doors::bind(wanted.listen)?,
            endpoint: Arc::new(Endpoint::webhook(Arc::clone(tls))),
            bench: Bench {
                terms: Arc::new(Terms::of(config)),
                mesh: Arc::new(mesh),
                metrics: Arc::clone(metrics),
            },
            cluster,
        }))
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn start(self, authority: &Authority, tasks: &TaskTracker, halt: &CancellationToken) {
        if let Some(cluster) = self.cluster {
            tasks.spawn(keep_known(cluster, authority.bundle(), halt.clone()));
        }
        let (bench, stop) = (self.bench, halt.clone());
        let metrics = Arc::clone(&bench.metrics);
        let visit = move |stream| webhook::visit(stream, bench.clone(), stop.clone());
        tasks.spawn(self.endpoint.receive(self.listener, metrics, visit, halt.clone()));
    }
}
