//! What concerns other trust domains: the listener of our bundle endpoint, and the relationships that are configured.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Error, Result};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{self, BundleEndpoint, Config, EndpointSvid, Profile},
    federation::{self, Federation, Kept, Published, Relation, Server},
    metrics::Metrics,
    state::StateFolder,
    tls::{self, Endpoint, Tls, WebFiles},
};

/// A bundle has some KiB; more than twice of what an endpoint may send is none.
const MAX_FIRST_BYTES: u64 = 512 * 1024;

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
        let (metrics, stop) = (Arc::clone(&published.metrics), halt.clone());
        let visit = move |stream| federation::visit(stream, published.clone(), stop.clone());
        tasks.spawn(self.endpoint.receive(self.listener, metrics, visit, halt.clone()));
    }
}

/// The relationships of `config`, with what was fetched last.
pub(super) fn federation(config: &Config, folder: &StateFolder, metrics: Arc<Metrics>) -> Result<Federation> {
    let relations = config.federation.iter().map(|relation| {
        read(relation).with_context(|| {
            format!("federation, line {}: trust domain {}", relation.line, relation.trust_domain)
        })
    });
    let relations = relations.collect::<Result<Vec<_>>>()?;
    Federation::open(relations, &Kept::new(folder), metrics).map_err(Error::msg)
}

fn read(relation: &config::Relation) -> Result<Relation> {
    let source = &relation.bundle_endpoint;
    let url = source.url.parse().with_context(|| format!("{:?} is no URL", source.url))?;
    let server = match &source.profile {
        Profile::Web => {
            let connector = tls::web_connector(source.trust.as_deref());
            Server::Web(connector.context("read the certificates that vouch for the URL")?)
        }
        Profile::Spiffe(EndpointSvid { id, bundle }) => {
            let said = || format!("read the first bundle {}", bundle.display());
            let length = std::fs::metadata(bundle).with_context(said)?.len();
            if length > MAX_FIRST_BYTES {
                anyhow::bail!("{}: {length} bytes are no bundle", bundle.display());
            }
            let id = id.clone();
            Server::Spiffe {
                first: std::fs::read(bundle).with_context(said)?,
                by_roots: Arc::new(move |roots| {
                    tls::spiffe_connector(roots, &id).map_err(|error| error.to_string())
                }),
            }
        }
    };
    Ok(Relation { trust_domain: relation.trust_domain.clone(), url, server })
}
