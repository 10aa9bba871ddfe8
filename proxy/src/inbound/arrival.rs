//! How a connection arrived: what all its streams share.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use douane_proto::{
    facts::{Facts, RequestFacts},
    id::{TrustDomain, WorkloadId},
    request::client_address,
    snapshot::Snapshot,
};

use http::HeaderValue;
use tokio::time::Instant;

use crate::{
    exchange::headers,
    limits::{places::Tenant, rate::Rate, share::Holder},
    telemetry::{
        access::{Protection, Record},
        tracer::Caller,
    },
};

/// A second, of one connection: a client that gives up now and then stays far below.
const MAX_RESETS: u32 = 100;

/// A connection that may carry streams.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The pod's address and port that it asked for.
    pub(super) destination: SocketAddr,
    /// The direct peer.
    pub(super) source: SocketAddr,
    /// Who it proved to be; `None` where plaintext is taken and it proved nothing.
    pub(super) peer: Option<WorkloadId>,
    /// Who we are.
    pub(super) local: WorkloadId,
    /// When its certificate ends; `None` where it showed none.
    pub(super) expires: Option<Instant>,
    /// The server name of its handshake.
    pub(super) sni: Option<Arc<str>>,
    /// What protects it.
    pub(super) protection: Protection,
    /// What the application is told of the peer, made with the first request.
    pub(super) told: OnceCell<Option<HeaderValue>>,
    /// How often its peer takes a request back.
    pub(super) resets: Resets,
    /// Its peer's places for requests.
    pub(super) tenant: Rc<Tenant>,
}

/// Streams that a peer resets on one connection, h2's own bounds on those that it has not yet handed out aside.
#[derive(Debug)]
pub(super) struct Resets {
    rate: RefCell<Rate>,
    flood: Cell<bool>,
}

impl Default for Resets {
    fn default() -> Self {
        Self { rate: RefCell::new(Rate::new(MAX_RESETS)), flood: Cell::new(false) }
    }
}

impl Resets {
    /// One more.
    pub(super) fn count(&self) {
        if !self.rate.borrow_mut().admits(std::time::Instant::now()) {
            self.flood.set(true);
        }
    }

    /// Are they too many?
    pub(super) fn are_a_flood(&self) -> bool {
        self.flood.get()
    }
}

impl Arrival {
    /// Who holds what its streams hold.
    pub(super) fn holder(&self) -> Holder {
        match &self.peer {
            Some(peer) => Holder::Peer(peer.clone()),
            None => Holder::Address(self.source.ip()),
        }
    }

    /// Who sends its trace headers. A peer of another trust domain is a stranger to our traces, whatever it may do.
    pub(super) fn caller(&self, snapshot: &Snapshot) -> Caller<'_> {
        let aliases = &snapshot.mesh.trust_domain_aliases;
        match &self.peer {
            Some(peer) if is_of(self.local.trust_domain(), aliases, peer) => Caller::Mesh(peer),
            _ => Caller::Outside,
        }
    }

    /// Has its peer proven to be of the mesh?
    pub(super) fn is_of_mesh(&self, snapshot: &Snapshot) -> bool {
        matches!(self.caller(snapshot), Caller::Mesh(_))
    }

    /// What a decision on one of its streams is made on.
    pub(super) fn facts(&self, request: Option<RequestFacts>) -> Facts {
        Facts {
            peer: self.peer.clone(),
            source: self.source.ip().to_canonical(),
            remote: self.source.ip().to_canonical(),
            destination: self.destination,
            sni: self.sni.as_deref().map(str::to_owned),
            request,
        }
    }

    /// The same of a request, whose headers may tell the client behind trusted proxies.
    pub(super) fn request_facts(&self, request: RequestFacts, trusted_proxies: u8) -> Facts {
        let direct = self.source.ip().to_canonical();
        let remote = client_address(&request.headers, direct, trusted_proxies);
        Facts { remote, ..self.facts(Some(request)) }
    }

    /// The identity header for the application; `None` for a peer that proved nothing.
    pub(super) fn client_cert(&self) -> Option<HeaderValue> {
        let made = || headers::client_cert(&self.local, self.peer.as_ref()?);
        self.told.get_or_init(made).clone()
    }

    /// Has the peer's certificate ended?
    pub(super) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= Instant::now())
    }

    /// Ends with the peer's certificate.
    pub(super) async fn expiry(&self) {
        match self.expires {
            Some(expires) => tokio::time::sleep_until(expires).await,
            None => std::future::pending().await,
        }
    }

    /// Writes what is known into a stream's record.
    pub(super) fn describe(&self, record: &mut Record) {
        record.peer_address = Some(self.source);
        record.local = Some(self.local.clone());
        record.peer = self.peer.clone();
        record.sni.clone_from(&self.sni);
        record.protection = self.protection.clone();
    }
}

// Is it of the mesh itself? A domain whose certificates are believed besides is another mesh.
fn is_of(own: &TrustDomain, aliases: &[TrustDomain], peer: &WorkloadId) -> bool {
    peer.trust_domain() == own || aliases.contains(peer.trust_domain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_a_foreign_trust_domain_is_a_stranger_to_traces_and_their_marks() {
        let own = TrustDomain::parse("cluster.local").unwrap();
        let aliases = [TrustDomain::parse("old.example").unwrap()];
        for (domain, is_ours) in [
            ("cluster.local", true),
            ("old.example", true),
            ("partner.example", false),
            ("sub.cluster.local", false),
            ("cluster.local.example", false),
        ] {
            let peer = format!("spiffe://{domain}/ns/shop/sa/web").parse().unwrap();
            assert_eq!(is_of(&own, &aliases, &peer), is_ours, "{domain}");
        }
    }
}
