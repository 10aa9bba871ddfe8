//! Mutual TLS 1.3 with SPIFFE identities, from the live `Identity`, read at each handshake.
//!
//! Knows neither where an identity comes from (`identity`) nor what a verified peer may do (`authz`).
//! - [`fault`]: why there is no session; `verify`: the one check of a peer; `beyond`: who else is believed; `settings`: how TLS is spoken, with the ciphers of
//!   `provider`
//! - [`hello`]: is a ClientHello meant for the mesh? [`sni`]: for whom is an application's own?
//! - `handshake`, `wire`, `cork`, `stream`: from a socket to a stream whose writes leave together
//! - [`channel`]: the road to the control plane, server-authenticated or mutual, whose `answers` end nobody; [`web`]: to a server that is none of the mesh
//! - `unverified`: towards the own application, for the kubelet's probes only

mod answers;
mod beyond;
pub mod channel;
mod cork;
pub mod fault;
mod handshake;
pub mod hello;
mod provider;
mod settings;
pub mod sni;
mod stream;
#[cfg(test)]
mod tests;
mod unverified;
mod verify;
pub mod web;
mod wire;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use douane_proto::{
    bundle::ForeignBundle,
    id::{TrustDomain, WorkloadId},
    svid::{self, Identity, TrustBundle},
};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::{net::TcpStream, sync::watch};

use self::{beyond::Beyond, settings::Settings, verify::Anchors};
pub use self::{
    cork::{flush_overdue, park_flush},
    fault::TlsError,
    handshake::{Greeting, Session},
    settings::{Alpn, Offer},
    stream::TlsStream,
    unverified::unverified,
};

/// Makes handshakes from the newest identity. Cheap to clone; belongs to one thread.
#[derive(Debug, Clone)]
pub struct Mtls {
    identity: watch::Receiver<Arc<Identity>>,
    // Other names of our trust domain, and other trust domains.
    beyond: Rc<watch::Sender<Beyond>>,
    // Configurations of the identity that the last handshake used.
    settings: Rc<RefCell<Option<Settings>>>,
}

impl Mtls {
    /// Reads the identity at each handshake.
    #[must_use]
    pub fn new(identity: watch::Receiver<Arc<Identity>>) -> Self {
        Self { identity, beyond: Rc::new(watch::Sender::new(Beyond::default())), settings: Rc::default() }
    }

    /// From now on a peer of one of these trust domains is one of ours, if our own roots vouch for it. A session with a
    /// peer of one that has left is [`Self::distrusted`].
    pub fn trust_aliases(&self, aliases: &[TrustDomain]) {
        self.beyond.send_if_modified(|held| {
            let changed = *held.aliases != *aliases;
            if changed {
                held.aliases = aliases.into();
            }
            changed
        });
    }

    /// From now on a peer of one of these trust domains is believed, if that domain's own bundle vouches for it. A session
    /// with a peer that none vouches for any more is [`Self::distrusted`].
    pub fn trust_federated(&self, federated: &Arc<[ForeignBundle]>) {
        self.beyond.send_if_modified(|held| {
            let changed = held.federated != *federated;
            if changed {
                held.federated = Arc::clone(federated);
            }
            changed
        });
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
        self.accept_after(&[], io).await
    }

    /// The same where `first` was already read of the connection.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn accept_after(&self, first: &[u8], io: TcpStream) -> Result<(TlsStream, Session), TlsError> {
        handshake::accept(io, first, &self.settings()?).await
    }

    /// Client side, in our own dialect; the peer must prove to be exactly `expected`. The caller bounds it in time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn connect(
        &self,
        io: TcpStream,
        expected: &WorkloadId,
    ) -> Result<(TlsStream, Session), TlsError> {
        self.connect_with(io, expected, Greeting { offer: Offer::Douane1, server_name: None }).await
    }

    /// The same in what `greeting` offers.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn connect_with(
        &self,
        io: TcpStream,
        expected: &WorkloadId,
        greeting: Greeting<'_>,
    ) -> Result<(TlsStream, Session), TlsError> {
        handshake::connect(io, &self.settings()?, expected, greeting).await
    }

    /// Ends when the root that vouches for the session's peer is not trusted any more, or the peer's trust domain has left
    /// the other names of ours or those that are federated with: the session must end then, however long its streams would still run. Its leaf's expiry
    /// does not matter here, nor a root of ours that has left the bundle in order. Of another domain's root nobody tells us
    /// why it left.
    pub async fn distrusted(&self, session: &Session) {
        let (mut identity, mut beyond) = (self.identity.clone(), self.beyond.subscribe());
        let mut vouched = (Arc::clone(&session.bundle), session.beyond.clone());
        loop {
            let now = (Arc::clone(&identity.borrow_and_update().bundle), beyond.borrow_and_update().clone());
            // Most changes are renewals, which leave the bundle as it is.
            if !Arc::ptr_eq(&vouched.0, &now.0) || !vouched.1.is(&now.1) {
                let is_concerned = !Arc::ptr_eq(&vouched.0, &now.0)
                    || !vouched.1.is_same_for(session.peer.trust_domain(), &now.1);
                vouched = now;
                if is_concerned && !is_trusted(session, Arc::clone(&vouched.0), vouched.1.clone()) {
                    return;
                }
            }
            tokio::select! {
                Ok(()) = identity.changed() => {}
                Ok(()) = beyond.changed() => {}
                // Writers that are gone change nothing any more.
                else => return std::future::pending().await,
            }
        }
    }

    fn settings(&self) -> Result<Settings, TlsError> {
        let (identity, beyond) = (self.identity(), self.beyond.borrow().clone());
        let mut held = self.settings.borrow_mut();
        match &*held {
            Some(settings) if Arc::ptr_eq(&settings.identity, &identity) && settings.beyond.is(&beyond) => {
                Ok(settings.clone())
            }
            _ => Ok(held.insert(Settings::new(identity, beyond)?).clone()),
        }
    }
}

/// Would this identity work: does its key fit its certificate, and does a path lead from it to its own bundle now?
///
/// # Errors
/// [`TlsError`] says what would not.
pub fn check_identity(identity: Identity) -> Result<(), TlsError> {
    let settings = Settings::new(Arc::new(identity), Beyond::default())?;
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
    Anchors::new(bundle, Beyond::default()).map(drop)
}

// Those of `then` that have left in order by `now`. Where nobody is trusted any more, none has.
fn retired_roots(then: &TrustBundle, now: &TrustBundle) -> Vec<Vec<u8>> {
    if now.retired_keys.is_empty() || now.roots.is_empty() || then.trust_domain != now.trust_domain {
        return Vec::new();
    }
    let has_retired =
        |root: &&Vec<u8>| svid::subject_key_id(root).is_some_and(|id| now.retired_keys.contains(&id));
    then.roots.iter().filter(has_retired).cloned().collect()
}

fn with_roots(bundle: Arc<TrustBundle>, more: Vec<Vec<u8>>) -> Arc<TrustBundle> {
    if more.is_empty() {
        return bundle;
    }
    let roots = bundle.roots.iter().cloned().chain(more).collect();
    Arc::new(TrustBundle { roots, ..(*bundle).clone() })
}

fn is_trusted(session: &Session, bundle: Arc<TrustBundle>, beyond: Beyond) -> bool {
    let chain: Vec<_> = session.chain.iter().map(|der| CertificateDer::from_slice(der)).collect();
    let retired = retired_roots(&session.bundle, &bundle);
    let (Some((leaf, intermediates)), Ok(anchors)) =
        (chain.split_first(), Anchors::new(with_roots(bundle, retired), beyond))
    else {
        return false;
    };
    let then = UnixTime::since_unix_epoch(Duration::from_secs(session.verified_at));
    anchors.verify(leaf, intermediates, then).is_ok()
}
