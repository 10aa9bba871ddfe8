//! From the application to wherever it wants: original destination, protocol, and then each request or stream is
//! resolved on its own.
//!
//! Knows not what the law of the destination says. Next: [`resolve`] (where does it lead), [`balance`] (to which of
//! them; [`ejection`]: not to who fails again and again; [`repeats`]: how much is said again), [`pool`] (on which connection), `http` and `tcp` (what travels; `foreign` where the peer speaks Istio's dialect; `resting`: what ends where nobody else would end it).

pub mod balance;
mod call;
pub mod ejection;
mod foreign;
mod http;
mod http_only;
pub mod pool;
pub mod repeats;
pub mod resolve;
mod resting;
mod retain;
mod routes;
mod sender;
mod tcp;
mod upgrade;
mod words;

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use crate::{
    authz::{InFlight, Road},
    config::Limits,
    discovery::Mesh,
    exchange::{
        clients::Clients,
        ledger::{Ledger, note},
        names::Names,
        origins::{Origins, Times},
        serve::{self, Ended, Framing},
    },
    limits::{
        crowd::{Crowd, Crowded},
        places::{Bounds, Places},
        share::{Holder, Sharing},
    },
    net::{
        detect::{Heard, Opening, Prefixed, SILENCE},
        hairpin::Hairpins,
        linger::linger,
        listener,
        original_dst::{NoOriginalDst, original_dst},
        relay,
        socket::Sockets,
    },
    outbound::{
        balance::Balancer, http_only::HttpOnly, pool::Pool, repeats::Budget, resolve::Route, routes::Routes,
        sender::Sender,
    },
    redirect::plan::{HEALTH_PORT, INBOUND_PORT, OUTBOUND_PORT},
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::{access::Direction, once::Once},
    tls::Mtls,
};

/// How destinations are reached.
#[derive(Debug)]
pub struct Ways {
    /// Those elsewhere.
    pub sockets: Sockets,
    /// The own pod.
    pub hairpins: Hairpins,
}

/// The outbound side.
#[derive(Debug)]
pub struct Outbound {
    shutdown: Shutdown,
    sender: Rc<Sender>,
}

impl Outbound {
    /// Finds peers by `mesh`, proves itself by `mtls`, records in `ledger`.
    #[must_use]
    pub fn new(
        mesh: Mesh,
        mtls: Mtls,
        ledger: Ledger,
        Ways { sockets, hairpins }: Ways,
        shutdown: Shutdown,
        limits: Limits,
    ) -> Self {
        let sender = Rc::new(Sender {
            mesh,
            ledger,
            routes: Routes::default(),
            pool: Pool::new(mtls, sockets, hairpins, shutdown.clone(), limits),
            balancer: Balancer::default(),
            budget: RefCell::new(Budget::new(Instant::now())),
            http_only: HttpOnly::default(),
            foreign: Clients::new(limits.pool_idle, shutdown.clone()),
            places: Places::new(Bounds {
                most: limits.in_flight,
                queue: limits.queue,
                wait: limits.queue_wait,
                sharing: Sharing::Whole,
            }),
            origins: Origins::new(
                sockets,
                Times { connect: limits.connect, rest: limits.pool_idle },
                shutdown.clone(),
            ),
            unwatched: InFlight::default(),
            warned: Once::default(),
            shutdown: shutdown.clone(),
            limits,
        });
        Self { shutdown, sender }
    }

    /// Serves the application's redirected connections until drained. One listener for each address family.
    pub async fn run(self: Rc<Self>, listeners: Vec<TcpListener>) {
        // All of them are the application's.
        let open = Crowd::new(self.sender.limits.connections, Sharing::Whole);
        let accepting = futures_util::future::join_all(listeners.into_iter().map(|listener| {
            let (serving, full) = (Rc::clone(&self), Rc::clone(&self));
            let serve = move |stream, source| {
                let outbound = Rc::clone(&serving);
                async move { outbound.redirected(stream, source).await }
            };
            let refuse = move |stream: TcpStream, source, crowded| {
                let refusal = match crowded {
                    Crowded::Pressure => Refusal::MemoryPressure,
                    Crowded::Full | Crowded::OfOne => Refusal::TooManyConnections,
                };
                full.refuse(&stream, source, &refusal);
            };
            // The application's own connections are not ended for its next one.
            let crowded = (|| false, refuse);
            listener::run(listener, Rc::clone(&open), self.shutdown.clone(), serve, crowded)
        }));
        let sender = &self.sender;
        let serving = async {
            tokio::join!(
                accepting,
                sender.pool.run(),
                sender.origins.run(),
                sender.foreign.run(),
                sender.tell_peers()
            )
        };
        tokio::select! {
            _ = serving => {}
            () = sender.unwatched.end_resting(sender.limits.stream_idle) => {}
        }
    }

    /// How external authorizers are reached: as the application's own requests are.
    #[must_use]
    pub fn road(&self) -> Road {
        let sender = Rc::clone(&self.sender);
        Road::new(move |call| {
            let sender = Rc::clone(&sender);
            async move { sender.call(call).await }
        })
    }

    /// Generations of the lines that take new streams, one entry for each line.
    #[must_use]
    pub fn open_lines(&self) -> Vec<u64> {
        self.sender.pool.generations()
    }

    async fn redirected(&self, stream: TcpStream, source: SocketAddr) {
        let refusal = match original_dst(&stream) {
            Ok(destination) => return self.connection(stream, source, destination).await,
            Err(NoOriginalDst::OwnPort { original }) => Refusal::OwnPort(original),
            Err(_) => Refusal::NotRedirected,
        };
        self.refuse(&stream, source, &refusal);
    }

    /// One connection of the application that wants to reach `destination`.
    pub async fn connection(&self, stream: TcpStream, source: SocketAddr, destination: SocketAddr) {
        let own = self.sender.mesh.snapshot().own.addresses.contains(&destination.ip().to_canonical());
        if own && [OUTBOUND_PORT, INBOUND_PORT, HEALTH_PORT].contains(&destination.port()) {
            return self.refuse(&stream, source, &Refusal::OwnPort(destination));
        }
        if let Err(error) = self.by_protocol(stream, destination).await {
            debug!(%error, %destination, "the application's connection broke before it said anything");
        }
    }

    // Declared, else sniffed.
    async fn by_protocol(&self, mut stream: TcpStream, destination: SocketAddr) -> std::io::Result<()> {
        let route = self.sender.route(destination, None).await;
        let limits = &self.sender.limits;
        let names = route.as_ref().map_or(Names::Titled, |route| route.names);
        let declared = route.as_ref().map_or(Protocol::Undeclared, |route| route.protocol);
        let (mut heard, silence) = match (declared, &route) {
            // At once: the server may be the one to speak first.
            (Protocol::Tcp, _) => (Heard::of_bytes(), Duration::ZERO),
            // Of an unknown destination there is nothing to hear. The client may name a host.
            (Protocol::Http1 | Protocol::Http2 | Protocol::Grpc, _)
            | (_, Err(Refusal::UnknownDestination { .. })) => (Heard::default(), limits.head),
            // What was learned saves the wait and nothing else: a request is a request on any such port.
            (Protocol::Undeclared, Ok(Route { learned: Protocol::Tcp, .. })) => {
                (Heard::default(), Duration::ZERO)
            }
            (Protocol::Undeclared, _) => (Heard::default(), SILENCE),
        };
        let since = Instant::now();
        let said = heard.listen_for(&mut stream, silence, limits).await?;
        if declared == Protocol::Undeclared {
            self.sender.ledger.detected(Direction::Outbound, said, since);
        }
        if let Some(framing) = Framing::of(said) {
            self.serve(stream, heard.into_bytes(), framing.spelt(names), destination).await;
            return Ok(());
        }
        let route = match said {
            Opening::Closed if declared.is_http() => return Ok(()),
            Opening::Silent if declared.is_http() || !heard.is_empty() => Err(Refusal::HeadTimeout),
            _ if declared.is_http() => Err(Refusal::HttpNeeded(destination.port())),
            Opening::Tls => match heard.server_name() {
                Some(name) => self.sender.route(destination, Some(&name)).await,
                None => route,
            },
            _ => route,
        };
        if let Some(framing) = self.sender.opaque(destination, &mut stream, &mut heard, said, route).await {
            self.serve(stream, heard.into_bytes(), framing.spelt(names), destination).await;
        }
        Ok(())
    }

    async fn serve(&self, mut stream: TcpStream, first: Bytes, framing: Framing, destination: SocketAddr) {
        let sender = Rc::clone(&self.sender);
        let tenant = sender.places.tenant(destination, Holder::Application);
        // HTTP/1.0 ends an answer by closing: only a reset tells that half of it is not the whole.
        relay::resets_unless_whole(&stream);
        let framing = framing.spelt(Names::asked_by(&first));
        let (io, limits) = (Prefixed::new(first, &mut stream), self.sender.limits);
        let served = serve::serve(io, framing, limits, &self.shutdown, move |request, verdict| {
            Rc::clone(&sender).answer(Rc::clone(&tenant), request, verdict)
        });
        match served.await {
            Ended::InOrder => {
                relay::is_whole(&stream);
                linger(&mut stream).await;
            }
            Ended::Cut => {}
            Ended::Late => {
                let mut access = self.sender.ledger.begin(Direction::Outbound, destination);
                note(&mut access.record, &Refusal::HeadTimeout);
            }
        }
    }

    fn refuse(&self, stream: &TcpStream, source: SocketAddr, refusal: &Refusal) {
        // A reset says "refused"; an ordinary end could be taken for an empty answer.
        let _ = stream.set_zero_linger();
        let destination = stream.local_addr().unwrap_or(source);
        let mut access = self.sender.ledger.begin(Direction::Outbound, destination);
        access.record.peer_address = Some(source);
        note(&mut access.record, refusal);
    }
}
