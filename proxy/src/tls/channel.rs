//! The road to the control plane: a socket from the caller's dialer, TLS that demands the control plane's SPIFFE ID,
//! and gRPC's channel on it. Used by `identity` (the server proves itself) and `discovery` (both do).
//!
//! The address selects only where to connect; no DNS name and no address counts as a name.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::{Identity, TrustBundle},
};
use hyper_util::rt::TokioIo;
use rand::seq::SliceRandom as _;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    answers::Harmless,
    fault::{self, TlsError},
    settings,
};

/// Connecting, handshake included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A control plane that vanished is noticed after 25 s.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(10);

/// A connection to the control plane, for gRPC's clients.
pub type Road = Harmless<Channel>;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Opens sockets; handed in by the application, since every socket comes from one function of `net`.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn(SocketAddr) -> Connecting + Send + Sync>);

/// Where the control plane is, who it must be, and how it is trusted before anything else is known.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who must answer.
    pub id: WorkloadId,
    /// PEM roots for the first contact; read anew at each connect, since it may be replaced.
    pub bundle_file: PathBuf,
    /// How to connect.
    pub dialer: Dialer,
}

/// Why there is no channel to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The file of roots cannot be used.
    #[error("trust bundle {}: {reason}", path.display())]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection.
    #[error("connect to the control plane at {host}: {reason}")]
    Connect {
        /// Where.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// It did not prove to be the control plane, or we are not trusted.
    #[error("the control plane: {0}")]
    Tls(#[from] TlsError),
}

/// Do we show who we are?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Only the control plane proves itself: we have no certificate yet, or renew it by our token.
    Server,
    /// Both do.
    Mutual,
}

impl Dialer {
    /// Wraps the function that opens sockets.
    pub fn new<F, C>(connect: F) -> Self
    where
        F: Fn(SocketAddr) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<TcpStream>> + Send + 'static,
    {
        Self(Arc::new(move |address| Box::pin(connect(address))))
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl ControlPlane {
    /// Connects. The bundle that we hold is tried first, since it follows rotations; the file is tried when there is
    /// none, or when the held one does not know the server (its state was made anew while we were away).
    ///
    /// # Errors
    /// [`ChannelError`], the last attempt's.
    pub async fn connect(
        &self,
        held: Option<&Identity>,
        authentication: Authentication,
    ) -> Result<Road, ChannelError> {
        let svid = match authentication {
            Authentication::Server => None,
            Authentication::Mutual => held.map(|identity| &identity.svid),
        };
        if let Some(identity) = held {
            let config = settings::control_plane(Arc::clone(&identity.bundle), svid, &self.id)?;
            match self.open(config).await {
                Err(ChannelError::Tls(TlsError::Peer(_))) => {}
                done => return done,
            }
        }
        let config = settings::control_plane(Arc::new(self.read_bundle()?), svid, &self.id)?;
        self.open(config).await
    }

    /// The roots in the file.
    ///
    /// # Errors
    /// [`ChannelError::Bundle`] when it is unreadable or empty.
    pub fn read_bundle(&self) -> Result<TrustBundle, ChannelError> {
        let fail = |reason: String| ChannelError::Bundle { path: self.bundle_file.clone(), reason };
        let text = std::fs::read(&self.bundle_file).map_err(|error| fail(error.to_string()))?;
        bundle_from_pem(self.id.trust_domain(), &text).map_err(fail)
    }

    async fn open(&self, config: Arc<ClientConfig>) -> Result<Road, ChannelError> {
        let connect = tokio::time::timeout(CONNECT_LIMIT, self.secure(config));
        let stream = connect.await.map_err(|_| self.fail(&"no answer in time"))??;
        // The scheme and the name only satisfy tonic: the stream below is ours.
        let endpoint = Endpoint::from_static("http://control-plane")
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector(Once(Some(stream))).await;
        channel.map(Harmless).map_err(|error| self.fail(&error))
    }

    async fn secure(&self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ChannelError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut failure = self.fail(&"the name has no address");
        let mut addresses: Vec<SocketAddr> = found.map_err(|error| self.fail(&error))?.collect();
        // Replicas share one name: all are asked alike, and where one does not listen, the next.
        addresses.shuffle(&mut rand::rng());
        for address in addresses {
            match (self.dialer.0)(address).await {
                Ok(socket) => {
                    let name = ServerName::from(address.ip());
                    return Ok(TlsConnector::from(config)
                        .connect(name, socket)
                        .await
                        .map_err(fault::from_io)?);
                }
                Err(error) => failure = self.fail(&error),
            }
        }
        Err(failure)
    }

    fn fail(&self, reason: &dyn std::fmt::Display) -> ChannelError {
        ChannelError::Connect { host: format!("{}:{}", self.host, self.port), reason: reason.to_string() }
    }
}

/// Reads the roots of `trust_domain` from PEM. Other text and line ends do not matter; equality is by DER.
///
/// # Errors
/// What is wrong with the text.
pub fn bundle_from_pem(trust_domain: &TrustDomain, text: &[u8]) -> Result<TrustBundle, String> {
    let roots: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(text)
        .map(|root| root.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is no PEM: {error}"))?;
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let bundle = TrustBundle { epoch: 0, sequence: 0, ..TrustBundle::of_roots(trust_domain.clone(), roots) };
    super::verify::Anchors::new(Arc::new(bundle.clone()), super::beyond::Beyond::default())
        .map_err(|error| error.to_string())?;
    Ok(bundle)
}

/// Hands tonic the one connected stream. When it breaks the channel is dead, and its user connects anew: with fresh
/// roots, a fresh token and a fresh certificate.
struct Once(Option<TlsStream<TcpStream>>);

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let spent =
            || io::Error::new(io::ErrorKind::NotConnected, "the connection to the control plane broke");
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(spent))
    }
}
