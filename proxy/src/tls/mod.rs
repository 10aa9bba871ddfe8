//! Mutual TLS 1.3 with SPIFFE identities, from the live `Identity`, read at each handshake.
//!
//! Knows neither where an identity comes from (`identity`) nor what a verified peer may do (`authz`).
//! - [`fault`]: why there is no session; `verify`: the one check of a peer; `settings`: how TLS is spoken, with the ciphers of
//!   `provider`
//! - `handshake`, `wire`, `cork`, `stream`: from a socket to a stream whose writes leave together
//! - [`channel`]: the road to the control plane, server-authenticated or mutual

pub mod channel;
mod cork;
pub mod fault;
mod handshake;
mod provider;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod verify;
mod wire;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use douane_proto::{
    id::WorkloadId,
    svid::{Identity, TrustBundle},
};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::{net::TcpStream, sync::watch};

pub use self::{
    cork::park_flush, fault::TlsError, handshake::Session, settings::ALPN_DOUANE1, stream::TlsStream,
};
use self::{settings::Settings, verify::Anchors};

/// Makes handshakes from the newest identity. Cheap to clone; belongs to one thread.
#[derive(Debug, Clone)]
pub struct Mtls {
    identity: watch::Receiver<Arc<Identity>>,
    // Configurations of the identity that the last handshake used.
    settings: Rc<RefCell<Option<Settings>>>,
}

impl Mtls {
    /// Reads the identity at each handshake.
    #[must_use]
    pub fn new(identity: watch::Receiver<Arc<Identity>>) -> Self {
        Self { identity, settings: Rc::default() }
    }

    /// The identity as it is now.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// The identity, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Identity>> {
        self.identity.clone()
    }

    /// Server side. The caller bounds it in time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn accept(&self, io: TcpStream) -> Result<(TlsStream, Session), TlsError> {
        handshake::accept(io, &self.settings()?).await
    }

    /// Client side; the peer must prove to be exactly `expected`. The caller bounds it in time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn connect(
        &self,
        io: TcpStream,
        expected: &WorkloadId,
    ) -> Result<(TlsStream, Session), TlsError> {
        handshake::connect(io, &self.settings()?, expected).await
    }

    /// Ends when the root that vouches for the session's peer has left the trust bundle: the session must end then,
    /// however long its streams would still run. Its leaf's expiry does not matter here.
    pub async fn distrusted(&self, session: &Session) {
        let mut identity = self.identity.clone();
        let mut vouched = Arc::clone(&session.bundle);
        let left = identity.wait_for(|identity| {
            // Most changes are renewals, which leave the bundle as it is.
            if Arc::ptr_eq(&vouched, &identity.bundle) {
                return false;
            }
            vouched = Arc::clone(&identity.bundle);
            !is_trusted(session, Arc::clone(&vouched))
        });
        if left.await.is_err() {
            // A writer that is gone changes nothing any more.
            std::future::pending::<()>().await;
        }
    }

    fn settings(&self) -> Result<Settings, TlsError> {
        let identity = self.identity();
        let mut held = self.settings.borrow_mut();
        match &*held {
            Some(settings) if Arc::ptr_eq(&settings.identity, &identity) => Ok(settings.clone()),
            _ => Ok(held.insert(Settings::new(identity)?).clone()),
        }
    }
}

/// Would this identity work: does its key fit its certificate, and does a path lead from it to its own bundle now?
///
/// # Errors
/// [`TlsError`] says what would not.
pub fn check_identity(identity: Identity) -> Result<(), TlsError> {
    let settings = Settings::new(Arc::new(identity))?;
    let chain: Vec<_> =
        settings.identity.svid.chain.iter().map(|der| CertificateDer::from_slice(der)).collect();
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(fault::PeerFault::Missing.into());
    };
    settings.anchors.verify(leaf, intermediates, UnixTime::now())?;
    Ok(())
}

/// Can each root of the bundle be read?
///
/// # Errors
/// [`TlsError::Own`] names the fault.
pub fn check_bundle(bundle: Arc<TrustBundle>) -> Result<(), TlsError> {
    Anchors::new(bundle).map(drop)
}

fn is_trusted(session: &Session, bundle: Arc<TrustBundle>) -> bool {
    let chain: Vec<_> = session.chain.iter().map(|der| CertificateDer::from_slice(der)).collect();
    let (Some((leaf, intermediates)), Ok(anchors)) = (chain.split_first(), Anchors::new(bundle)) else {
        return false;
    };
    let then = UnixTime::since_unix_epoch(Duration::from_secs(session.verified_at));
    anchors.verify(leaf, intermediates, then).is_ok()
}
