//! The certificate that our listener shows, from our own authority, renewed at half its life by the wall clock, and the
//! handshake with it. Knows not how sockets are accepted (`listen`).

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::{
    id::WorkloadId,
    svid::{Leaf, Svid, TrustBundle},
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::NoServerSessionStorage,
    version::TLS13,
};
use tokio::{net::TcpStream, time};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    error::{HANDSHAKE_LIMIT, TlsError},
    public::endpoint_config,
    verify::{SpiffeClients, proven},
};
use crate::{
    audit::{AuditError, Event, Ledger, Record},
    authority::{Authority, key_hash},
    peer::{self, Peer},
};

/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";
/// How often the certificate is held against the wall clock, which may be set, and which goes on while a machine sleeps
/// and timers do not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The listener's identity and the trust that it verifies clients by, both live.
pub struct Tls {
    authority: Arc<Authority>,
    id: WorkloadId,
    dns_names: Vec<String>,
    current: RwLock<Shown>,
    ledger: Option<Ledger>,
}

struct Shown {
    config: Arc<ServerConfig>,
    /// The same certificate for whoever reads our bundle.
    endpoint: Arc<ServerConfig>,
    leaf: Leaf,
    /// For the audit log.
    key: String,
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
        let shown = Shown::new(&svid, &authority.bundle().borrow())?;
        Ok(Self { authority, id, dns_names, current: RwLock::new(shown), ledger: None })
    }

    /// From now on our own certificates are recorded as everybody's are; the first one at once.
    ///
    /// # Errors
    /// [`AuditError`] when it cannot be recorded.
    pub async fn recorded_in(mut self, ledger: Ledger) -> Result<Self, AuditError> {
        let record = self.current.read().unwrap_or_else(PoisonError::into_inner).record();
        ledger.append(record).await?;
        self.ledger = Some(ledger);
        Ok(self)
    }

    /// Renews the certificate at half its life, and takes over a new bundle at once, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut bundle = self.authority.bundle();
        let (mut owed, mut failing) = (false, false);
        loop {
            owed |= tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(LOOK_EVERY) => self.is_due(SystemTime::now()),
                changed = bundle.changed() => if changed.is_err() { return } else { true },
            };
            if !owed {
                continue;
            }
            match self.renew(SystemTime::now()).await {
                Ok(()) => (owed, failing) = (false, false),
                Err(error) if !failing => {
                    tracing::error!(%error, "our own certificate cannot be renewed; the old one stays");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Has the certificate lived half its life, or does the clock say that it is not valid yet?
    fn is_due(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let leaf = self.current.read().unwrap_or_else(PoisonError::into_inner).leaf.clone();
        now < leaf.not_before || now >= leaf.not_before + (leaf.not_after - leaf.not_before) / 2
    }

    async fn renew(&self, now: SystemTime) -> Result<(), TlsError> {
        let svid = self.authority.own_svid(&self.id, &self.dns_names, now)?;
        let shown = Shown::new(&svid, &self.authority.bundle().borrow())?;
        if let Some(ledger) = &self.ledger {
            ledger.append(shown.record()).await?;
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    /// How the bundle endpoint shows the certificate: to anybody, since nobody has to prove anything there.
    pub(super) fn endpoint(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).endpoint)
    }

    /// The handshake with a client, within bounded time.
    ///
    /// # Errors
    /// [`TlsError`]: the client is not let in.
    pub async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer), TlsError> {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config);
        let address = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = time::timeout(HANDSHAKE_LIMIT, handshake).await.map_err(|_| TlsError::Slow)??;
        let mut peer = Peer::stranger(address);
        if let Some(leaf) = proven(stream.get_ref().1.peer_certificates())? {
            peer.certificate = Some(peer::Shown { serial: leaf.serial, not_after: leaf.not_after });
            peer.id = Some(leaf.id);
        }
        Ok((stream, peer))
    }
}

impl Shown {
    fn new(svid: &Svid, bundle: &TrustBundle) -> Result<Self, TlsError> {
        let key = svid.chain.first().map(|leaf| key_hash(leaf)).unwrap_or_default();
        let (chain, private) = shown(svid);
        let endpoint = Arc::new(endpoint_config(chain, private)?);
        Ok(Self { config: Arc::new(server_config(svid, bundle)?), endpoint, leaf: svid.leaf.clone(), key })
    }

    fn record(&self) -> Record {
        Record {
            identity: Some(self.leaf.id.to_string()),
            serial: Some(self.leaf.serial.clone()),
            not_after: Some(self.leaf.not_after),
            evidence: Some("own".to_owned()),
            key: Some(self.key.clone()),
            ..Record::of(Event::Issued)
        }
    }
}

fn server_config(svid: &Svid, bundle: &TrustBundle) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (chain, key) = shown(svid);
    let verifier = SpiffeClients::new(bundle, Arc::clone(&provider))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would take over the peer's identity without verifying it again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn shown(svid: &Svid) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    (chain, PrivatePkcs8KeyDer::from(svid.key.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateFolder;
    use douane_proto::id::TrustDomain;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn our_certificate_is_due_by_the_wall_clock_forwards_and_backwards() {
        let home = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let id = WorkloadId::new(&domain, "douane-system", "douane-ca").unwrap();
        let now = SystemTime::now();
        let authority = Authority::open(&StateFolder::new(home.path()), &domain, HOUR, now).unwrap();
        let tls = Tls::new(Arc::new(authority), id, Vec::new(), now).unwrap();
        assert!(!tls.is_due(now) && !tls.is_due(now + HOUR / 3));
        for set_to in [now + HOUR * 2 / 3, now + HOUR * 20, now - HOUR] {
            assert!(tls.is_due(set_to));
            tls.renew(set_to).await.unwrap();
            assert!(!tls.is_due(set_to));
        }
    }
}
