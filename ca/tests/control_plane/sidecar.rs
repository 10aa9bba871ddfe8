//! The sidecar's side of the wire, as small as it can be: dial, issue, watch.

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
    mesh::{Protocol, learned_to_wire},
    snapshot::{Found, Question, Snapshot},
    svid::{Leaf, Svid},
    wire::{
        Delta, Hello, IssueRequest, IssueResponse, Report, WatchRequest, discovery_client::DiscoveryClient,
        identity_client::IdentityClient, issue_request::Evidence, watch_request::Kind,
    },
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

/// Dials the control plane with TLS of its own, as the sidecar does.
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

/// A TLS client that trusts a bundle file, with or without a certificate of its own.
pub(crate) fn tls(bundle: &Path, own: Option<&Svid>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(bundle).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(svid) => {
            let chain = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
            let key = PrivatePkcs8KeyDer::from(svid.key.to_vec());
            config.with_client_auth_cert(chain, key.into()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

pub(crate) async fn channel(
    address: SocketAddr,
    tls: TlsConnector,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_static("http://douane-ca").timeout(Duration::from_secs(60));
    endpoint.connect_with_connector(Dial { address, tls }).await
}

/// A request as a sidecar makes it, with its key.
pub(crate) fn request(evidence: Evidence, lifetime_seconds: u32) -> (IssueRequest, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    (IssueRequest { csr, lifetime_seconds, evidence: Some(evidence) }, key)
}

pub(crate) async fn issue(
    address: SocketAddr,
    bundle: &Path,
    request: IssueRequest,
) -> Result<IssueResponse, Status> {
    let channel = channel(address, tls(bundle, None)).await.unwrap();
    Ok(IdentityClient::new(channel).issue(request).await?.into_inner())
}

/// An SVID by a service account token.
pub(crate) async fn svid(address: SocketAddr, bundle: &Path, token: String) -> Svid {
    let (request, key) = request(Evidence::ServiceAccountToken(token), 0);
    let response = issue(address, bundle, request).await.unwrap();
    Leaf::parse(&response.chain[0]).unwrap();
    Svid::parse(response.chain, key.serialize_der().into()).unwrap()
}

/// A discovery stream and what it has brought so far.
pub(crate) struct Watch {
    asks: mpsc::Sender<WatchRequest>,
    deltas: Streaming<Delta>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) last: Delta,
}

impl Watch {
    pub(crate) async fn open(
        address: SocketAddr,
        bundle: &Path,
        svid: Option<&Svid>,
        workload: &str,
    ) -> Result<Self, Status> {
        let channel = channel(address, tls(bundle, svid)).await.unwrap();
        let (asks, outgoing) = mpsc::channel(16);
        let hello = Hello {
            workload: workload.to_owned(),
            features: douane_proto::features::ALL.iter().map(ToString::to_string).collect(),
            ..Hello::default()
        };
        asks.send(WatchRequest { kind: Some(Kind::Hello(hello)) }).await.unwrap();
        let deltas = DiscoveryClient::new(channel).watch(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut watch = Self { asks, deltas, snapshot: None, last: Delta::default() };
        watch.next().await?;
        Ok(watch)
    }

    /// The next delta, applied.
    pub(crate) async fn next(&mut self) -> Result<(), Status> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.deltas.message());
        let delta = next.await.expect("a delta comes in time")?.ok_or_else(|| Status::aborted("it ended"))?;
        self.last = delta.clone();
        self.snapshot =
            Some(Snapshot::apply(self.snapshot.as_ref(), delta).expect("each delta follows the last"));
        Ok(())
    }

    /// Is nothing pushed for this long?
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.deltas.message()).await.is_err()
    }

    pub(crate) async fn say(&self, kind: Kind) {
        self.asks.send(WatchRequest { kind: Some(kind) }).await.unwrap();
    }

    /// Tells what the own ports have been seen to speak.
    pub(crate) async fn tell(&self, ports: &[(u16, Protocol)]) {
        let learned = learned_to_wire(&ports.iter().copied().collect());
        self.say(Kind::Report(Report { learned, ..Report::default() })).await;
    }

    /// Says which bundle it uses, and until when its certificate is valid.
    pub(crate) async fn acknowledge(&self, bundle: (u64, u64), svid: &Svid) {
        let authorities = svid.chain.iter().filter_map(|der| douane_proto::svid::authority_key_id(der));
        let report = Report {
            bundle_epoch: bundle.0,
            bundle_sequence: bundle.1,
            certificate_expires: svid.leaf.not_after,
            certificate_authorities: authorities.collect(),
            ..Report::default()
        };
        self.say(Kind::Report(report)).await;
    }

    pub(crate) async fn ask(&mut self, question: Question) -> Found {
        self.say(Kind::Ask((&question).into())).await;
        loop {
            self.next().await.unwrap();
            if self.last.answers.iter().any(|answer| answer.question == Some((&question).into())) {
                return self.found(&question);
            }
        }
    }

    pub(crate) fn found(&self, question: &Question) -> Found {
        self.snapshot.as_ref().unwrap().answers[question].clone()
    }

    /// The names of the policies that it was told.
    pub(crate) fn policies(&self) -> Vec<String> {
        let set = self.last.policies.iter().flat_map(|set| &set.policies);
        set.map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
    }
}
