//! The listener of the admission webhook: our own certificate, which is renewed in memory, and what pods and policies are
//! judged by.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::doors;
use crate::{
    config::Config,
    inject::Terms,
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
}

impl Admission {
    pub(super) fn bind(
        config: &Config,
        mesh: &Arc<Mesh>,
        tls: &Arc<Tls>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>> {
        let Some(wanted) = &config.webhook else { return Ok(None) };
        Ok(Some(Self {
            listener: doors::bind(wanted.listen)?,
            endpoint: Arc::new(Endpoint::webhook(Arc::clone(tls))),
            bench: Bench {
                terms: Arc::new(Terms::of(config)),
                mesh: Arc::clone(mesh),
                metrics: Arc::clone(metrics),
            },
        }))
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn start(self, tasks: &TaskTracker, halt: &CancellationToken) {
        let (bench, stop) = (self.bench, halt.clone());
        let metrics = Arc::clone(&bench.metrics);
        let visit = move |stream| webhook::visit(stream, bench.clone(), stop.clone());
        tasks.spawn(self.endpoint.receive(self.listener, metrics, visit, halt.clone()));
    }
}
