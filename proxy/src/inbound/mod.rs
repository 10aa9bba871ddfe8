//! From a peer to the application: original destination, handshake, then each stream is decided on its own.
//!
//! Knows neither how a peer found us, nor what the law says (`authz` asks it). Next: `streams` takes the streams of
//! a `douane/1` connection apart into `http` and `tcp`; `foreign` serves whoever speaks another dialect. Where a mesh that is being migrated takes plaintext as well, `beginning` tells
//! which it is and `plaintext` serves it.

mod arrival;
mod beginning;
mod foreign;
mod http;
mod plaintext;
mod receiver;
mod streams;
mod tcp;
mod upgrade;
mod words;

use std::{cell::OnceCell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use douane_proto::mtls::{MtlsMode, Proof};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    authz::{Judge, Road},
    config::Limits,
    exchange::{
        ledger::{Ledger, note},
        origins::{Origins, Times},
    },
    inbound::{
        arrival::{Arrival, Resets},
        beginning::Beginning,
        plaintext::Then,
        receiver::Receiver,
    },
    limits::{
        crowd::{Crowd, Crowded},
        places::{Bounds, Places},
        pressure::Pressure,
        share::{Holder, Sharing},
        turns::Turns,
    },
    net::{
        hairpin::{Hairpin, Load},
        listener,
        original_dst::{NoOriginalDst, original_dst},
        relay,
        socket::Sockets,
    },
    redirect::plan::{HEALTH_PORT, INBOUND_PORT, OUTBOUND_PORT},
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::{
        access::{Direction, Protection},
        once::Once,
    },
    tls::{Alpn, Mtls, TlsError, TlsStream},
};

/// Handshakes in progress; one holds some 40 KiB. Peers are told apart by their addresses, as they have proved nothing yet.
const MAX_HANDSHAKES: usize = 1024;
/// How often it is looked whether connections must be shed; as often as memory is looked at.
const SHED: Duration = Duration::from_millis(500);
/// The sidecar's ports, which nobody may ask it for.
const OWN_PORTS: [u16; 3] = [OUTBOUND_PORT, INBOUND_PORT, HEALTH_PORT];

/// How others are reached.
#[derive(Debug)]
pub struct Ways {
    /// The application.
    pub sockets: Sockets,
    /// External authorizers.
    pub road: Road,
}

/// The inbound side.
#[derive(Debug)]
pub struct Inbound {
    mtls: Mtls,
    ledger: Ledger,
    shutdown: Shutdown,
    receiver: Rc<Receiver>,
    handshakes: Rc<Crowd>,
    turns: Turns,
    peers: Rc<Crowd>,
}

impl Inbound {
    /// Decides by `mesh`'s law, proves itself by `mtls`, records in `ledger`.
    #[must_use]
    pub fn new(
        mesh: crate::discovery::Mesh,
        mtls: Mtls,
        ledger: Ledger,
        Ways { sockets, road }: Ways,
        shutdown: Shutdown,
        limits: Limits,
    ) -> Self {
        let origins = Origins::new(
            sockets,
            Times { connect: limits.connect_local, rest: limits.pool_idle },
            shutdown.clone(),
        );
        let receiver = Rc::new(Receiver {
            judge: Rc::new(Judge::new(mesh.policies(), road, mtls.clone())),
            mesh,
            ledger: ledger.clone(),
            origins,
            requests: Places::new(Bounds {
                most: limits.in_flight,
                queue: limits.queue,
                wait: limits.queue_wait,
                sharing: Sharing::Fair,
            }),
            // What keeps a connection of the application to itself for as long as it likes is not waited for.
            opaque: Places::new(Bounds {
                most: limits.connections,
                queue: 0,
                wait: Duration::ZERO,
                sharing: Sharing::AtMost(limits.connections_of_one),
            }),
            warned: Once::default(),
            resting: Rc::default(),
            shutdown: shutdown.clone(),
            limits,
        });
        Self {
            mtls,
            ledger,
            shutdown,
            receiver,
            handshakes: Crowd::new(MAX_HANDSHAKES, Sharing::Fair),
            turns: Turns::default(),
            peers: Crowd::new(limits.connections, Sharing::AtMost(limits.connections_of_one)),
        }
    }

    /// Serves redirected connections and the pod's connections to itself until drained.
    pub async fn run(self: Rc<Self>, listener: TcpListener, hairpins: mpsc::Receiver<Hairpin>) {
        let serve = |stream, source| {
            let inbound = Rc::clone(&self);
            async move { inbound.redirected(stream, source).await }
        };
        let refuse = |stream: TcpStream, source, crowded| {
            self.refuse(None, source, &stream, &crowd(crowded));
        };
        let make_room = || self.receiver.resting.oldest_leaves();
        let Limits { connections, connections_of_one, .. } = self.receiver.limits;
        let open = Crowd::new(connections, Sharing::AtMost(connections_of_one));
        tokio::join!(
            listener::run(listener, open, self.shutdown.clone(), serve, (make_room, refuse)),
            self.shed(),
            self.take_hairpins(hairpins),
            self.receiver.origins.run(),
            self.watch_law(),
        );
    }

    // While memory is short nothing is kept that only might be used again.
    async fn shed(&self) {
        let Shutdown { draining, .. } = &self.shutdown;
        while !draining.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SHED) => {}
                () = draining.cancelled() => {}
            }
            if Pressure::now() >= Pressure::Tight {
                self.receiver.resting.all_leave();
            }
        }
    }

    async fn watch_law(&self) {
        let Shutdown { forced, tasks, draining } = &self.shutdown;
        tokio::select! {
            () = Rc::clone(&self.receiver.judge).watch(self.receiver.limits) => {}
            () = async { draining.cancelled().await; tasks.wait().await } => {}
            () = forced.cancelled() => {}
        }
    }

    async fn redirected(&self, stream: TcpStream, source: SocketAddr) {
        let destination = match original_dst(&stream) {
            Ok(destination) => destination,
            Err(NoOriginalDst::OwnPort { original }) => {
                return self.refuse(Some(original), source, &stream, &Refusal::OwnPort(original));
            }
            Err(_) => return self.refuse(None, source, &stream, &Refusal::NotRedirected),
        };
        self.connection(stream, source, destination).await;
    }

    /// One connection of a peer that asked for `destination`.
    pub async fn connection(&self, stream: TcpStream, source: SocketAddr, destination: SocketAddr) {
        if let Err(refusal) = self.check(destination) {
            return self.refuse(Some(destination), source, &stream, &refusal);
        }
        let mode = self.receiver.mesh.modes().borrow().of(destination.port());
        let served = match mode {
            MtlsMode::Strict => self.mutual(stream, Bytes::new(), source, destination).await,
            MtlsMode::Permissive | MtlsMode::Disable => self.either(stream, mode, source, destination).await,
        };
        if let Err(refusal) = served {
            self.record(destination, source, &refusal);
        }
    }

    // Mutual TLS; `first` was already read.
    async fn mutual(
        &self,
        stream: TcpStream,
        first: Bytes,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<(), Refusal> {
        let Ok(begun) = self.handshakes.enter(Holder::Address(source.ip())) else {
            self.refuse(Some(destination), source, &stream, &Refusal::TooManyHandshakes);
            return Ok(());
        };
        let handshake = self.turns.take(self.mtls.accept_after(&first, stream));
        let handshake = tokio::time::timeout(self.receiver.limits.handshake, handshake);
        let (io, session) =
            handshake.await.map_err(|_| Refusal::HandshakeTimeout)?.map_err(|error| match error {
                TlsError::Plaintext => Refusal::Plaintext,
                error => Refusal::Handshake { kind: error.kind(), reason: error.to_string() },
            })?;
        drop(begun);
        let holder = Holder::Peer(session.peer.clone());
        let _member = self.peers.enter(holder.clone()).map_err(crowd)?;
        let arrival = Arrival {
            resets: Resets::default(),
            tenant: self.receiver.requests.tenant(destination, holder),
            destination,
            source,
            peer: Some(session.peer.clone()),
            local: session.local.clone(),
            expires: Some(session.peer_expires()),
            sni: session.sni.clone(),
            protection: Protection::Mtls {
                version: session.version,
                group: session.group.clone(),
                binding: session.binding,
            },
            told: OnceCell::new(),
        };
        tokio::select! {
            // The mode may have changed since the connection began: nothing is served before it is looked at again.
            biased;
            refusal = self.receiver.mode_changed(destination.port(), Proof::Certificate) => Err(refusal),
            // The root that vouched for the peer is gone, and so are its streams.
            () = self.mtls.distrusted(&session) => Ok(()),
            served = self.by_dialect(io, session.alpn, arrival) => served,
        }
    }

    async fn by_dialect(&self, io: TlsStream, alpn: Alpn, arrival: Arrival) -> Result<(), Refusal> {
        let (receiver, arrival) = (Rc::clone(&self.receiver), Rc::new(arrival));
        if alpn == Alpn::Douane1 {
            receiver.serve(io, arrival).await;
            return Ok(());
        }
        receiver.foreign(io, alpn, arrival).await
    }

    // Plaintext, or mutual TLS where that is taken as well.
    async fn either(
        &self,
        mut stream: TcpStream,
        mode: MtlsMode,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<(), Refusal> {
        // Whatever ends early must not look like the whole.
        relay::resets_unless_whole(&stream);
        let opening = match self.receiver.beginning(&mut stream, mode, destination.port()).await? {
            Beginning::Mesh(first) => {
                relay::is_whole(&stream);
                return self.mutual(stream, first, source, destination).await;
            }
            Beginning::Plain(opening) => opening,
        };
        self.receiver.admit_plaintext(source, destination);
        let arrival = Arrival {
            resets: Resets::default(),
            tenant: self.receiver.requests.tenant(destination, Holder::Address(source.ip())),
            destination,
            source,
            peer: None,
            local: self.mtls.identity().svid.leaf.id.clone(),
            expires: None,
            sni: None,
            protection: Protection::None,
            told: OnceCell::new(),
        };
        let receiver = Rc::clone(&self.receiver);
        let then = tokio::select! {
            // A client may be silent until the mode has changed: nothing is served before it is looked at again.
            biased;
            refusal = self.receiver.mode_changed(destination.port(), Proof::Plaintext) => Err(refusal),
            served = receiver.plaintext(&mut stream, opening, mode, Rc::new(arrival)) => served,
        };
        match then? {
            Then::Ended => Ok(()),
            Then::Mesh(first) => {
                relay::is_whole(&stream);
                self.mutual(stream, first, source, destination).await
            }
        }
    }

    async fn take_hairpins(&self, mut hairpins: mpsc::Receiver<Hairpin>) {
        loop {
            let hairpin = tokio::select! {
                hairpin = hairpins.recv() => hairpin,
                () = self.shutdown.forced.cancelled() => return,
            };
            let Some(Hairpin { io, destination, load }) = hairpin else { return };
            // A service may name one of our ports as its end.
            if let Err(refusal) = self.check(destination) {
                self.record(destination, SocketAddr::new(destination.ip(), 0), &refusal);
                continue;
            }
            let local = self.mtls.identity().svid.leaf.id.clone();
            let arrival = Arrival {
                resets: Resets::default(),
                tenant: self.receiver.requests.tenant(destination, Holder::Peer(local.clone())),
                destination,
                // A pod that talks to itself comes from its own address.
                source: SocketAddr::new(destination.ip(), 0),
                peer: Some(local.clone()),
                local,
                expires: None,
                sni: None,
                protection: Protection::None,
                told: OnceCell::new(),
            };
            let (receiver, arrival) = (Rc::clone(&self.receiver), Rc::new(arrival));
            self.shutdown.tasks.spawn_local(async move {
                match load {
                    Load::Streams => receiver.serve(io, arrival).await,
                    Load::Http1 => receiver.switching(io, arrival).await,
                }
            });
        }
    }

    fn check(&self, destination: SocketAddr) -> Result<(), Refusal> {
        let snapshot = self.receiver.mesh.snapshot();
        if !snapshot.own.addresses.contains(&destination.ip().to_canonical()) {
            return Err(Refusal::NotOurAddress(destination));
        }
        if OWN_PORTS.contains(&destination.port()) {
            return Err(Refusal::OwnPort(destination));
        }
        Ok(())
    }

    fn refuse(
        &self,
        destination: Option<SocketAddr>,
        source: SocketAddr,
        stream: &TcpStream,
        refusal: &Refusal,
    ) {
        // A reset says "refused"; an ordinary end could be taken for an empty answer.
        let _ = stream.set_zero_linger();
        let destination = destination.or_else(|| stream.local_addr().ok());
        self.record(destination.unwrap_or(source), source, refusal);
    }

    fn record(&self, destination: SocketAddr, source: SocketAddr, refusal: &Refusal) {
        let mut access = self.ledger.begin(Direction::Inbound, destination);
        access.record.peer_address = Some(source);
        access.record.local = Some(self.mtls.identity().svid.leaf.id.clone());
        note(&mut access.record, refusal);
    }
}

fn crowd(crowded: Crowded) -> Refusal {
    match crowded {
        Crowded::Full => Refusal::TooManyConnections,
        Crowded::OfOne => Refusal::TooManyOfPeer,
        Crowded::Pressure => Refusal::MemoryPressure,
    }
}
