//! A sidecar's side of discovery, as small as it can be: it proves who its pod is by the token that Kubernetes gave it, and
//! watches.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use douane_proto::{
    snapshot::{Found, Question, Snapshot},
    svid::Svid,
    wire::{
        Delta, Hello, IssueRequest, WatchRequest, discovery_client::DiscoveryClient,
        identity_client::IdentityClient, issue_request::Evidence, watch_request::Kind,
    },
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, sync::mpsc, time};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Status, Streaming,
    codegen::tokio_stream::wrappers::ReceiverStream,
    transport::{Channel, Endpoint, Uri},
};

/// Only a failure waits for it.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Dial {
    address: SocketAddr,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let name = ServerName::try_from("douane-ca.douane-system.svc").unwrap();
            let stream = TcpStream::connect(dial.address).await?;
            Ok(TokioIo::new(dial.tls.connect(name, stream).await?))
        })
    }
}

async fn channel(address: SocketAddr, bundle: &Path, own: Option<&Svid>) -> Channel {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(bundle).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(svid) => {
            let chain = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
            let key = PrivatePkcs8KeyDer::from(svid.key.to_vec());
            config.with_client_auth_cert(chain, key.into()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let endpoint = Endpoint::from_static("http://douane-ca").timeout(LIMIT);
    endpoint.connect_with_connector(Dial { address, tls }).await.unwrap()
}

/// An SVID by a service account token.
pub(crate) async fn svid(address: SocketAddr, bundle: &Path, token: String) -> Result<Svid, Status> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let evidence = Some(Evidence::ServiceAccountToken(token));
    let request = IssueRequest { csr, lifetime_seconds: 0, evidence };
    let issued = IdentityClient::new(channel(address, bundle, None).await).issue(request).await?.into_inner();
    Ok(Svid::parse(issued.chain, key.serialize_der().into()).unwrap())
}

/// A discovery stream and what it has brought so far.
pub(crate) struct Watch {
    asks: mpsc::Sender<WatchRequest>,
    deltas: Streaming<Delta>,
    pub(crate) snapshot: Snapshot,
    policies: Vec<String>,
}

impl Watch {
    /// Opens it as the sidecar of `workload`, `namespace/pod`.
    pub(crate) async fn open(
        address: SocketAddr,
        bundle: &Path,
        svid: &Svid,
        workload: &str,
    ) -> Result<Self, Status> {
        let channel = channel(address, bundle, Some(svid)).await;
        let (asks, outgoing) = mpsc::channel(16);
        let hello = Hello {
            workload: workload.to_owned(),
            features: douane_proto::features::ALL.iter().map(ToString::to_string).collect(),
            ..Hello::default()
        };
        asks.send(WatchRequest { kind: Some(Kind::Hello(hello)) }).await.unwrap();
        let stream = DiscoveryClient::new(channel).watch(ReceiverStream::new(outgoing)).await?;
        let mut deltas = stream.into_inner();
        let first = next(&mut deltas).await?;
        let policies = names(&first).unwrap_or_default();
        let snapshot = Snapshot::apply(None, first).unwrap();
        Ok(Self { asks, deltas, snapshot, policies })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&mut self, question: &Question) -> Found {
        let ask = WatchRequest { kind: Some(Kind::Ask(question.into())) };
        self.asks.send(ask).await.unwrap();
        loop {
            let delta = next(&mut self.deltas).await.unwrap();
            let is_answer = delta.answers.iter().any(|answer| answer.question == Some(question.into()));
            self.take(delta);
            if is_answer {
                return self.snapshot.answers[question].clone();
            }
        }
    }

    /// Takes in what is pushed until `is_so`; fails aloud when that takes too long.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Snapshot) -> bool) {
        let pushed = async {
            while !is_so(&self.snapshot) {
                let delta = self.deltas.message().await.unwrap().expect("the stream goes on");
                self.take(delta);
            }
        };
        if time::timeout(LIMIT, pushed).await.is_err() {
            panic!("not pushed within {LIMIT:?}: {what}; the snapshot: {:#?}", self.snapshot);
        }
    }

    /// Takes in what is pushed until these policies govern it, in this order.
    pub(crate) async fn until_governed(&mut self, policies: &[&str]) {
        let pushed = async {
            while self.policies != policies {
                let delta = self.deltas.message().await.unwrap().expect("the stream goes on");
                self.take(delta);
            }
        };
        if time::timeout(LIMIT, pushed).await.is_err() {
            panic!("not within {LIMIT:?}: {policies:?}, but {:?}", self.policies);
        }
    }

    /// The names of the policies that govern it, sorted.
    pub(crate) fn policies(&self) -> Vec<String> {
        self.policies.clone()
    }

    fn take(&mut self, delta: Delta) {
        if let Some(names) = names(&delta) {
            self.policies = names;
        }
        self.snapshot = Snapshot::apply(Some(&self.snapshot), delta).unwrap();
    }
}

fn names(delta: &Delta) -> Option<Vec<String>> {
    let set = delta.policies.as_ref()?;
    let mut names: Vec<_> =
        set.policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
    names.sort();
    Some(names)
}

async fn next(deltas: &mut Streaming<Delta>) -> Result<Delta, Status> {
    let next = time::timeout(LIMIT, deltas.message()).await;
    next.expect("a delta comes in time")?.ok_or_else(|| Status::aborted("it ended"))
}
