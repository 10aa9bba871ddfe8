//! The control plane as a whole: binds what a configuration asks for, starts every task, and stops them in order.
//!
//! `doors` are bound first (`admission`: that of the webhook); `care` is taken while it runs; `cluster`: what Kubernetes is told; `foreign`: other trust domains; `state`: the authority's. Knows each room by its door only.
//! `bind` and `run` are apart, so that whoever starts it can learn its addresses first.

mod admission;
mod care;
mod cluster;
mod doors;
mod foreign;
mod state;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use douane_proto::{
    id::WorkloadId,
    istio::istio_certificate_service_server::IstioCertificateServiceServer,
    wire::{discovery_server::DiscoveryServer, identity_server::IdentityServer},
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, mpsc},
    time,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use crate::{
    admin,
    attest::{Attestor, KeySource, LiveKeys, Meaning, Reviewer, TokenRules},
    audit::Ledger,
    authority::Authority,
    budget::{Allowance, Budgets},
    config::{Config, ConfigError, Durability, OWN_ACCOUNT, OWN_NAMESPACE, Oidc, Tokens},
    discovery::{self, Discovery, DiscoveryService, Trust},
    federation::{self, Federation},
    fetch::{Guard, Origin, Plaintext},
    holders::Holders,
    issue::{self, IdentityService},
    istio::{self, IstioService},
    jwks::{self, Fetcher},
    metrics::{self, Metrics},
    office::Office,
    rpc::{Either, Nobody},
    state::StateFolder,
    tls::{self, Bounds, Connection, Gate, Strangers, Tls},
    traffic::Traffic,
};

/// Connections at once; a sidecar needs one.
const MAX_CONNECTIONS: usize = 20_000;
/// A sidecar without a certificate asks for one and leaves within seconds; nobody else has a reason to be a stranger.
const STRANGERS: Bounds = Bounds { in_all: 4096, of_one_address: 256, visit: Duration::from_secs(30) };
/// Many sidecars may stand behind one address, and all come back at once when we restart.
const HANDSHAKES_OF_ONE_ADDRESS: Allowance = Allowance { burst: 2000.0, rate: 200.0 };
/// Secured connections that wait to be served.
const ACCEPT_QUEUE: usize = 64;
/// Dead peers are noticed within these two.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// See [`KEEPALIVE_EVERY`].
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(20);
/// A sidecar has one long stream and an issue call now and then.
const MAX_STREAMS_EACH: u32 = 16;
/// A request's headers are a few hundred bytes, and Istio's clients send their token among them.
const MAX_HEADERS: u32 = 16 * 1024;
/// After this, streams that did not end by themselves are dropped.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A control plane that is bound and does not serve yet.
pub struct App {
    listeners: Vec<TcpListener>,
    // Without it all works but commands.
    admin: Option<UnixListener>,
    folder: StateFolder,
    metrics_listener: Option<TcpListener>,
    bundle_endpoint: Option<foreign::BundleListener>,
    admission: Option<admission::Admission>,
    cluster: Option<cluster::Cluster>,
    authority: Arc<Authority>,
    federation: Federation,
    root_lead: Duration,
    ledger: Ledger,
    durability: Durability,
    holders: Holders,
    attestor: Arc<Attestor>,
    local: Option<UnixListener>,
    keys: Vec<Arc<LiveKeys>>,
    tls: Arc<Tls>,
    discovery: Discovery,
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
}

/// Where a control plane listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: Vec<SocketAddr>,
    /// Metrics and status.
    pub metrics: Option<SocketAddr>,
    /// Our bundle, for other trust domains.
    pub bundle: Option<SocketAddr>,
    /// The admission webhook.
    pub webhook: Option<SocketAddr>,
}

/// Keeps keys out of core dumps and of other processes' reach, and takes the descriptors that we may have: each sidecar
/// needs one.
///
/// # Errors
/// As the kernel says.
pub fn harden() -> Result<()> {
    use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid core dumps")?;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

impl App {
    /// Opens the authority and the resources, and binds all listeners.
    ///
    /// # Errors
    /// What stops a control plane from starting, with what to mend.
    pub async fn bind(config: Config) -> Result<Self> {
        config.check()?;
        let mut folder = StateFolder::new(config.dir.clone().ok_or(ConfigError::NoFolder)?);
        if config.replica {
            folder = folder.among_replicas()?;
        }
        let now = SystemTime::now();
        let holders = Holders::default();
        folder = state::shared(&config, folder).await?;
        let authority = state::open(&config, &folder, &holders).await.context("open the authority")?;
        let authority = Arc::new(authority);
        let audit = &config.audit;
        let log = audit.dir.clone().map_or_else(|| folder.audit(), |dir| folder.own_of(dir));
        let ledger = Ledger::open(&log, audit.file_bytes)?;
        let own = WorkloadId::new(&config.trust_domain, OWN_NAMESPACE, OWN_ACCOUNT)?;
        let tls = Tls::new(Arc::clone(&authority), own.clone(), config.own_names(), now)?;
        let tls = Arc::new(tls.recorded_in(ledger.clone()).await?);

        let rules = token_rules(&config)?;
        let keys: Vec<_> = rules.iter().map(|rules| Arc::clone(&rules.keys)).collect();
        for rules in &rules {
            if let Err(error) = rules.keys.refresh().await {
                // It may come later (the issuer may start after us); until then tokens are refused.
                let issuer = &rules.issuer;
                tracing::warn!(%error, issuer, "there are no keys to verify the issuer's tokens with yet");
            }
        }
        let users = config.unix.as_ref().map_or(&[][..], |unix| &unix.identities);
        let mut attestor = Attestor::new(&folder, &config.trust_domain, own, rules).with_users(users)?;
        let mesh = Arc::new(cluster::mesh(&config));
        let cluster = cluster::Cluster::open(&config, &mesh).await?;
        let client = cluster.as_ref().map(cluster::Cluster::client);
        if let (Some(client), Some(tokens)) = (client, &config.tokens) {
            attestor = attestor.with_review(Reviewer::of_cluster(client.clone(), tokens.audience.clone()));
        }
        let metrics = Arc::new(Metrics::new());
        let (fetcher, keyring) = Fetcher::new(key_terms(&config, &folder)?, Arc::clone(&metrics));
        let discovery = Discovery::open(&folder, &config, client, (keyring, Arc::clone(&metrics)))
            .context("read the resources")?;

        Ok(Self {
            listeners: doors::bind_all(&config.listen)?,
            admin: doors::bind_admin(&folder, &authority),
            metrics_listener: match config.metrics {
                Some(address) => Some(doors::bind(address)?),
                None => None,
            },
            admission: admission::Admission::bind(&config, &mesh, &tls, &metrics)?,
            cluster,
            bundle_endpoint: match &config.bundle_endpoint {
                Some(endpoint) => Some(foreign::BundleListener::bind(endpoint, &tls).await?),
                None => None,
            },
            federation: foreign::federation(&config, &folder, Arc::clone(&metrics))?,
            folder,
            root_lead: config.authority.root_lead,
            local: match &config.unix {
                Some(unix) => {
                    let path = &unix.socket;
                    Some(tls::bind_local(path).with_context(|| format!("listen on {}", path.display()))?)
                }
                None => None,
            },
            authority,
            ledger,
            durability: config.audit.durability,
            holders,
            attestor: Arc::new(attestor),
            keys,
            tls,
            discovery,
            fetcher,
            metrics,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn addresses(&self) -> Result<Addresses> {
        let grpc = self.listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let metrics = self.metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let bundle = self.bundle_endpoint.as_ref().map(foreign::BundleListener::address).transpose()?;
        let webhook = self.admission.as_ref().map(admission::Admission::address).transpose()?;
        Ok(Addresses { grpc, metrics, bundle, webhook })
    }

    /// Serves until `stop`; then streams are ended, and what does not end is dropped after five seconds.
    ///
    /// # Errors
    /// When a task that everything depends on has ended by itself.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let tasks = TaskTracker::new();
        // Ends everything when one critical task ends.
        let halt = stop.child_token();
        let (secured, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let gate = Gate {
            tls: Arc::clone(&self.tls),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            strangers: Strangers::new(STRANGERS),
            rates: Arc::new(Budgets::new(HANDSHAKES_OF_ONE_ADDRESS, std::time::Instant::now())),
            metrics: Arc::clone(&self.metrics),
        };
        for listener in self.listeners {
            tasks.spawn(tls::listen(listener, gate.clone(), secured.clone(), halt.clone()));
        }
        if let Some(local) = self.local {
            tasks.spawn(tls::listen_local(local, gate.clone(), secured.clone(), halt.clone()));
        }
        drop(secured);
        let tls = Arc::clone(&self.tls);
        tasks.spawn(critical("the renewal of our certificate", halt.clone(), async move |halt| {
            tls.run(halt).await;
        }));
        for keys in self.keys {
            tasks.spawn(critical("the reading of token keys", halt.clone(), async move |halt| {
                keys.run(halt).await;
            }));
        }
        let traffic = Traffic::default();
        let desk = admin::Desk {
            authority: Arc::clone(&self.authority),
            traffic: traffic.clone(),
            index: self.discovery.index(),
            federated: self.federation.known(),
            resources: self.discovery.folders(),
        };
        doors::administer(self.admin, (self.folder, desk), &tasks, &halt);
        let (authority, attestor, metrics) =
            (Arc::clone(&self.authority), Arc::clone(&self.attestor), Arc::clone(&self.metrics));
        let (ledger, holders) = (self.ledger.clone(), self.holders.clone());
        tasks.spawn(critical("the care for the authority", halt.clone(), async move |halt| {
            care::care(&authority, (&attestor, &ledger), (&holders, &metrics), halt).await;
        }));
        let ledger = self.ledger.clone();
        tasks.spawn(critical("the keeping of the audit log", halt.clone(), async move |halt| {
            ledger.run(halt).await;
        }));
        let trust = Trust { bundle: self.authority.bundle(), federated: self.federation.bundles() };
        let service = DiscoveryService::new(
            self.discovery.index(),
            (self.discovery.learned(), traffic),
            (trust, self.holders),
            Arc::clone(&self.metrics),
            halt.clone(),
        );
        if let Some(listener) = self.metrics_listener {
            let status = doors::status(self.discovery.status(), &self.authority);
            let (metrics, halt) = (Arc::clone(&self.metrics), halt.clone());
            metrics::serve_apart(listener, metrics, status, halt).context("serve the metrics")?;
        }
        if let Some(admission) = self.admission {
            admission.start(&tasks, &halt);
        }
        if let Some(cluster) = self.cluster {
            cluster.start(&self.authority, &self.discovery, &tasks, &halt);
        }
        if let Some(endpoint) = self.bundle_endpoint {
            let (bundle, metrics) = (self.authority.bundle(), Arc::clone(&self.metrics));
            let published = federation::Published { bundle, root_lead: self.root_lead, metrics };
            endpoint.start(published, &tasks, &halt);
        }
        let discovery = self.discovery;
        tasks.spawn(critical("the reading of resources", halt.clone(), async move |halt| {
            discovery.run(halt).await;
        }));

        let federation = self.federation;
        tasks.spawn(critical(
            "the fetching of other trust domains' bundles",
            halt.clone(),
            async move |halt| {
                federation.run(halt).await;
            },
        ));
        let fetcher = self.fetcher;
        tasks.spawn(critical("the fetching of issuers' keys", halt.clone(), async move |halt| {
            fetcher.run(halt).await;
        }));

        let (audit, authority) = ((self.ledger, self.durability), Arc::clone(&self.authority));
        let office = Office::new(self.attestor, self.authority, audit, Arc::clone(&self.metrics))
            .context("start the workers")?;
        let office = Arc::new(office);
        let identity = IdentityService::new(Arc::clone(&office));
        let serving = serve((identity, IstioService::new(office), service), incoming, halt.clone());
        let mut serving = std::pin::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = halt.cancelled() => match time::timeout(STOP_LIMIT, serving).await {
                Ok(served) => served,
                Err(_) => Ok(()),
            },
        };
        halt.cancel();
        tasks.close();
        let _ = time::timeout(STOP_LIMIT, tasks.wait()).await;
        // It waits for the API server; whether it comes to know of it, or finds out by itself, is all the same.
        let _ = tokio::task::spawn_blocking(move || authority.leave()).await;
        served.context("serve gRPC")?;
        if !stop.is_cancelled() {
            bail!("a critical task ended by itself; see the log");
        }
        Ok(())
    }
}

async fn serve(
    (identity, istio, discovery): (IdentityService, IstioService, DiscoveryService),
    incoming: mpsc::Receiver<Connection>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let identity = IdentityServer::new(identity).max_decoding_message_size(issue::MAX_REQUEST_BYTES);
    let istio = IstioCertificateServiceServer::new(istio).max_decoding_message_size(istio::MAX_REQUEST_BYTES);
    let discovery = DiscoveryServer::new(discovery).max_decoding_message_size(discovery::MAX_REQUEST_BYTES);
    let services = Either::new(identity, Either::new(discovery, Either::new(istio, Nobody)));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_LIMIT))
        .max_concurrent_streams(MAX_STREAMS_EACH)
        .http2_max_header_list_size(MAX_HEADERS)
        .serve_with_incoming_shutdown(
            services,
            ReceiverStream::new(incoming).map(Ok::<_, io::Error>),
            stop.cancelled_owned(),
        )
        .await
}

// A critical task that ends, or panics, ends the process: never half alive.
async fn critical<F>(name: &'static str, halt: CancellationToken, task: impl FnOnce(CancellationToken) -> F)
where
    F: Future<Output = ()>,
{
    let ended = halt.clone().drop_guard();
    task(halt.clone()).await;
    if !halt.is_cancelled() {
        tracing::error!("{name} ended by itself");
    }
    drop(ended);
}

// Whoever may write a resource chooses the URLs: our own addresses are not theirs to dial.
fn key_terms(config: &Config, folder: &StateFolder) -> Result<jwks::Terms> {
    let jwks = &config.jwks;
    let own = config.listen.iter().chain(&config.metrics).map(SocketAddr::ip);
    let own = own.filter(|address| !address.is_unspecified());
    let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
    let mut forbidden = jwks.forbid_addresses.clone();
    forbidden.extend(own.chain(api_server).map(ipnet::IpNet::from));
    let plaintext = if jwks.allow_http { Plaintext::Allowed } else { Plaintext::Refused };
    let tls = match &jwks.trust {
        Some(file) => Some(tls::https_connector(file).with_context(|| format!("read {}", file.display()))?),
        None => tls::system_connector(),
    };
    Ok(jwks::Terms {
        guard: Guard::new(jwks.allow_addresses.clone(), forbidden, plaintext),
        tls,
        refresh_every: jwks.refresh_every,
        keep_for: jwks.keep_for,
        kept: jwks::Kept::new(folder),
    })
}

fn token_rules(config: &Config) -> Result<Vec<TokenRules>> {
    let mut rules = Vec::new();
    if let Some(Tokens { issuer, audience, jwks, jwks_trust }) = config.tokens.clone() {
        let keys = Arc::new(LiveKeys::new(key_source(&jwks, jwks_trust.as_deref())?));
        rules.push(TokenRules { issuer, audience, keys, meaning: Meaning::ServiceAccounts });
    }
    for Oidc { issuer, audience, jwks, jwks_trust, identities } in config.oidc.clone() {
        let keys = Arc::new(LiveKeys::new(key_source(&jwks, jwks_trust.as_deref())?));
        rules.push(TokenRules { issuer, audience, keys, meaning: Meaning::Mapped(identities) });
    }
    Ok(rules)
}

fn key_source(jwks: &str, trust: Option<&Path>) -> Result<KeySource> {
    if !jwks.starts_with("http://") && !jwks.starts_with("https://") {
        return Ok(KeySource::File(jwks.into()));
    }
    let url = jwks.parse().with_context(|| format!("{jwks:?} is no URL"))?;
    if trust.is_none() && jwks.starts_with("https://") {
        bail!("{jwks} needs jwksTrust: a PEM file that vouches for it");
    }
    let tls =
        trust.map(|path| tls::https_connector(path).with_context(|| format!("read {}", path.display())));
    Ok(KeySource::Url(Origin { url, tls: tls.transpose()? }))
}
