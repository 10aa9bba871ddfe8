//! What concerns other trust domains: the listener of our bundle endpoint.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::BundleEndpoint,
    federation::{self, Published},
    tls::{Endpoint, Tls, WebFiles},
};

/// The bundle endpoint, bound and not served yet.
pub(super) struct BundleListener {
    listener: TcpListener,
    endpoint: Arc<Endpoint>,
    // Where its certificate is somebody else's.
    files: Option<Arc<WebFiles>>,
}

impl BundleListener {
    pub(super) async fn bind(config: &BundleEndpoint, tls: &Arc<Tls>) -> Result<Self> {
        let (endpoint, files) = match &config.web {
            Some(web) => {
                let files = WebFiles::open(web.certificate.clone(), web.key.clone());
                let files = Arc::new(files.context("the certificate of the bundle endpoint")?);
                (Endpoint::web(Arc::clone(&files)), Some(files))
            }
            None => (Endpoint::spiffe(Arc::clone(tls)), None),
        };
        let listener = TcpListener::bind(config.listen);
        let listener = listener.await.with_context(|| format!("listen on {}", config.listen))?;
        Ok(Self { listener, endpoint: Arc::new(endpoint), files })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn start(self, published: Published, tasks: &TaskTracker, halt: &CancellationToken) {
        if let Some(files) = self.files {
            tasks.spawn(files.run(halt.clone()));
        }
        let endpoint = self.endpoint;
        let accept = move |stream, from| {
            let endpoint = Arc::clone(&endpoint);
            async move { endpoint.accept(stream, from).await }
        };
        tasks.spawn(federation::serve(self.listener, accept, published, halt.clone()));
    }
}
