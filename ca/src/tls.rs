//! Our own listener: TLS 1.3 only, our certificate from our own authority and rotating by itself, the client's
//! certificate optional in the handshake and verified by the SPIFFE rules when it is shown.
//!
//! tonic's own TLS configuration cannot rotate; it is handed streams that are already secured. Knows not what a caller
//! may do (`issue`, `discovery/publish`): it says who the caller is.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::{
    id::WorkloadId,
    svid::{Leaf, Svid, TrustBundle},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{authority::Authority, metrics::Metrics, peer::Peer};

/// From the accepted connection to the finished handshake; a slow one must not hold a place for long.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";
/// After a failed renewal of our own certificate, and at least so often when its life is very short.
const RETRY: Duration = Duration::from_secs(1);

/// The listener's identity and the trust that it verifies clients by, both live.
pub struct Tls {
    authority: Arc<Authority>,
    id: WorkloadId,
    dns_names: Vec<String>,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why no listener could be secured, or a connection was not.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our own certificate could not be made.
    #[error("make our own certificate")]
    Own(#[from] crate::authority::IssueError),
    /// The library refuses the configuration, or the handshake failed.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Roots that nothing can be verified by.
    #[error("the trust bundle holds no usable root")]
    Roots(#[from] rustls::server::VerifierBuilderError),
    /// The connection broke in the handshake.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client was too slow.
    #[error("no handshake within {HANDSHAKE_LIMIT:?}")]
    Slow,
    /// A file of trusted certificates holds none.
    #[error("the file holds no PEM certificate")]
    NoCertificate,
}

impl Tls {
    /// Shows `id` and `dns_names`, signed by `authority`; verifies clients by the authority's bundle.
    ///
    /// # Errors
    /// [`TlsError`] when there is no certificate to show.
    pub fn new(
        authority: Arc<Authority>,
        id: WorkloadId,
        dns_names: Vec<String>,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let svid = authority.own_svid(&id, &dns_names, now)?;
        let config = server_config(&svid, &authority.bundle().borrow())?;
        Ok(Self { authority, id, dns_names, current: RwLock::new(Arc::new(config)) })
    }

    /// Renews the certificate at half its life, and takes over a new bundle at once, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut bundle = self.authority.bundle();
        let mut pause = RETRY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(pause) => {}
                changed = bundle.changed() => if changed.is_err() { return },
            }
            pause = match self.renew(SystemTime::now()) {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "our own certificate could not be renewed; the old one stays");
                    RETRY
                }
            };
        }
    }

    // Says how long the new certificate is good enough.
    fn renew(&self, now: SystemTime) -> Result<Duration, TlsError> {
        let svid = self.authority.own_svid(&self.id, &self.dns_names, now)?;
        let config = server_config(&svid, &self.authority.bundle().borrow())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let left = u64::try_from(svid.leaf.not_after).unwrap_or(0).saturating_sub(now);
        Ok(Duration::from_secs(left / 2).max(RETRY))
    }

    /// The handshake with a client, within bounded time.
    ///
    /// # Errors
    /// [`TlsError`]: the client is not let in.
    pub async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer), TlsError> {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let address = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = time::timeout(HANDSHAKE_LIMIT, handshake).await.map_err(|_| TlsError::Slow)??;
        let peer = Peer { address, id: proven(stream.get_ref().1.peer_certificates())? };
        Ok((stream, peer))
    }
}

/// A secured connection with the one who is at its other end, as tonic takes it.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// Accepts and secures connections until `stop`; each takes one of `places` while it lives.
pub async fn listen(
    listener: TcpListener,
    tls: Arc<Tls>,
    secured: mpsc::Sender<Connection>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that broke at once: the next may do better in a moment.
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, secured, metrics) = (Arc::clone(&tls), secured.clone(), Arc::clone(&metrics));
        // A slow handshake never holds up the next connection.
        tokio::spawn(async move {
            let from = stream.peer_addr().ok();
            match tls.accept(stream).await {
                Ok((stream, peer)) => {
                    // Fails only when the server has ended.
                    let _ = secured.send(Connection { stream, peer, _place: place }).await;
                }
                Err(error) => {
                    metrics.handshake_failed();
                    tracing::info!(%error, peer = ?from, "a handshake failed");
                }
            }
        });
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// The verifier has seen the same bytes and accepted them.
fn proven(chain: Option<&[CertificateDer<'_>]>) -> Result<Option<WorkloadId>, rustls::Error> {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Ok(None) };
    Ok(Some(Leaf::parse(leaf).map_err(|error| rustls::Error::General(error.to_string()))?.id))
}

fn server_config(svid: &Svid, bundle: &TrustBundle) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivatePkcs8KeyDer::from(svid.key.to_vec());
    let verifier = SpiffeClients::new(bundle, Arc::clone(&provider))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key.into())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would take over the peer's identity without verifying it again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Verifies a client's chain against the roots of exactly one trust domain, and its leaf by the SPIFFE rules.
#[derive(Debug)]
struct SpiffeClients {
    bundle: TrustBundle,
    paths: Arc<dyn ClientCertVerifier>,
}

impl SpiffeClients {
    fn new(bundle: &TrustBundle, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in &bundle.roots {
            roots.add(CertificateDer::from(root.clone()))?;
        }
        let paths = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { bundle: bundle.clone(), paths })
    }
}

impl ClientCertVerifier for SpiffeClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let leaf = Leaf::parse(end_entity).map_err(|error| rustls::Error::General(error.to_string()))?;
        // The roots of one domain say nothing about another (X509-SVID 5.1).
        if *leaf.id.trust_domain() != self.bundle.trust_domain {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        }
        self.paths.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.paths.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.paths.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.paths.supported_verify_schemes()
    }
}

/// Dials `https` servers whose certificates the PEM file at `trusted` vouches for: where token keys are fetched from.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn https_connector(trusted: &Path) -> Result<TlsConnector, TlsError> {
    let text = std::fs::read(trusted)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| TlsError::NoCertificate)?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
