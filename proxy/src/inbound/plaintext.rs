//! A connection of a peer that proves nothing, where the mesh takes plaintext: HTTP is decided for each request, anything
//! else once. Such a peer has no identity, whatever it says of itself.

use std::{future::pending, net::SocketAddr, rc::Rc};

use bytes::Bytes;
use douane_proto::{mesh::Protocol, mtls::Proof};
use http::{HeaderMap, Version};
use tokio::net::TcpStream;
use tracing::warn;

use crate::{
    exchange::{
        ledger::{SharedAccess, note},
        serve::{self, Ended, Framing},
    },
    inbound::{arrival::Arrival, beginning::Plain, http::Source, receiver::Receiver},
    net::{
        detect::{Opening, Prefixed},
        relay::{self, Counts, RelayError},
    },
    refusal::Refusal,
    telemetry::access::Direction,
};

impl Receiver {
    /// Counts a peer without a sidecar, and warns of it when it comes first.
    pub(super) fn admit_plaintext(&self, source: SocketAddr, destination: SocketAddr) {
        self.ledger.in_plaintext(Direction::Inbound);
        if self.warned.is_first(source.ip().to_canonical()) {
            warn!(%source, %destination, "a peer speaks plaintext; it has no identity (PeerAuthentication is not STRICT)");
        }
    }

    /// Resolves when the port's mode of mutual TLS no longer admits a connection with this proof.
    pub(super) async fn mode_changed(&self, port: u16, proof: Proof) -> Refusal {
        let mut modes = self.mesh.modes();
        let changed = modes.wait_for(|modes| !modes.of(port).admits(proof)).await;
        match changed.map(|modes| modes.of(port)) {
            Ok(mode) => Refusal::ModeChanged(mode.name()),
            // The writer is gone: the last mode stays.
            Err(_) => pending().await,
        }
    }

    /// Serves plaintext until it ends.
    pub(super) async fn plaintext(
        self: Rc<Self>,
        stream: TcpStream,
        Plain { opening, first }: Plain,
        arrival: Rc<Arrival>,
    ) -> Result<(), Refusal> {
        let port = arrival.destination.port();
        let declared = self.mesh.snapshot().own.protocol(port);
        let must_be_http = self.must_be_http(declared, port);
        match opening {
            _ if declared == Protocol::Tcp => {}
            Opening::Http1 => return self.plain_http(stream, first, Framing::Http1, arrival).await,
            Opening::Http2 => return self.plain_http(stream, first, Framing::Http2, arrival).await,
            Opening::Closed if must_be_http => return Ok(()),
            Opening::Silent if must_be_http => return Err(Refusal::HeadTimeout),
            _ if must_be_http => return Err(Refusal::HttpNeeded(port)),
            Opening::Tls | Opening::Other | Opening::Silent | Opening::Closed => {}
        }
        self.plain_bytes(stream, first, &arrival).await;
        Ok(())
    }

    async fn plain_http(
        self: Rc<Self>,
        mut stream: TcpStream,
        first: Bytes,
        framing: Framing,
        arrival: Rc<Arrival>,
    ) -> Result<(), Refusal> {
        let io = Prefixed::new(first, &mut stream);
        let receiver = Rc::clone(&self);
        let served = serve::serve(io, framing, self.limits, &self.shutdown, move |request, verdict| {
            let (receiver, arrival) = (Rc::clone(&receiver), Rc::clone(&arrival));
            async move {
                let version = request.version();
                // Of a client that has gone, the server of this connection drops the requests itself.
                let mut answer =
                    receiver.answer(&arrival, request, Source::Application(verdict), pending()).await;
                // hyper knows what HTTP/1.0 cannot bear.
                *answer.version_mut() = if version == Version::HTTP_10 { Version::HTTP_11 } else { version };
                answer
            }
        });
        match served.await {
            Ended::InOrder => relay::is_whole(&stream),
            Ended::Cut => {}
            Ended::Late => return Err(Refusal::HeadTimeout),
        }
        Ok(())
    }

    async fn plain_bytes(&self, mut stream: TcpStream, first: Bytes, arrival: &Arrival) {
        let access = self.ledger.begin_traced(Direction::Inbound, arrival.destination, &HeaderMap::new());
        arrival.describe(&mut access.borrow_mut().record);
        match self.relay_bytes(&mut stream, first, arrival, &access).await {
            Ok(()) => relay::is_whole(&stream),
            Err(refusal) => note(&mut access.borrow_mut().record, &refusal),
        }
    }

    async fn relay_bytes(
        &self,
        stream: &mut TcpStream,
        first: Bytes,
        arrival: &Arrival,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        let (mut server, ends) = self.admit_opaque(arrival, access).await?;
        relay::resets_unless_whole(&server);
        access.borrow_mut().opened();
        let counts = Counts::default();
        let ended = tokio::select! {
            ended = relay::sockets(stream, first, &mut server, &counts, self.limits.idle) => {
                ended.map_err(|error| broken(arrival, &error))
            }
            refusal = ends => Err(refusal),
        };
        let record = &mut access.borrow_mut().record;
        (record.bytes_in, record.bytes_out) = (counts.up.get(), counts.down.get());
        if ended.is_ok() {
            relay::is_whole(&server);
        }
        ended
    }
}

// Which of the two sockets broke cannot be told; the client is the one that nobody vouches for.
fn broken(arrival: &Arrival, error: &RelayError) -> Refusal {
    match error {
        RelayError::Idle => Refusal::Idle,
        RelayError::Socket(_) => Refusal::ClientGone,
        RelayError::Stream(error) => {
            Refusal::UpstreamFailed { address: arrival.destination, reason: error.to_string() }
        }
    }
}
