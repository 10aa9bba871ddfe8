//! A connection that is framed as the application frames it: HTTP is decided for each request, anything else once. So speaks
//! a peer that proves nothing, where the mesh takes plaintext (it has no identity, whatever it says of itself), and inside
//! mutual TLS whoever speaks no `douane/1` (`foreign`).

use std::{
    future::{pending, ready},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
};

use bytes::Bytes;
use douane_proto::mtls::{MtlsMode, Proof};
use futures_util::{FutureExt as _, future::Either};
use http::{HeaderMap, Version};
use tokio::io::AsyncWriteExt as _;
use tracing::warn;

use crate::{
    exchange::{
        ledger::{SharedAccess, note},
        names::Names,
        serve::{self, Ended, Framing},
    },
    inbound::{
        arrival::Arrival,
        beginning::{Plain, is_for_the_mesh},
        http::Source,
        receiver::Receiver,
        words::{Admitted, Spoken},
    },
    net::{
        conduit::{self, Conduit},
        detect::{Opening, Prefixed},
        relay::{Counts, RelayError},
    },
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::{access::Direction, tracer::Caller},
};

/// What comes after plaintext.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing.
    Ended,
    /// It was none: a ClientHello for the mesh, whole.
    Mesh(Bytes),
}

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

    /// Serves plaintext until it ends, or until it turns out that a peer's sidecar was only late to begin its handshake.
    pub(super) async fn plaintext<C: Conduit>(
        self: Rc<Self>,
        stream: &mut C,
        Plain { opening, mut heard }: Plain,
        mode: MtlsMode,
        arrival: Rc<Arrival>,
    ) -> Result<Then, Refusal> {
        let port = arrival.destination.port();
        let declared = self.mesh.snapshot().own.protocol(port);
        if self.must_be_http(declared, port) {
            let Some(framing) = Framing::of(opening) else {
                return match opening {
                    Opening::Closed => Ok(Then::Ended),
                    Opening::Silent => Err(Refusal::HeadTimeout),
                    _ => Err(Refusal::HttpNeeded(port)),
                };
            };
            return self.http_on(stream, heard.into_bytes(), framing, arrival).await;
        }
        let access = self.ledger.begin_traced(
            Direction::Inbound,
            arrival.destination,
            &mut HeaderMap::new(),
            Caller::Sidecar,
        );
        arrival.describe(&mut access.borrow_mut().record);
        let spoken = self.hear(stream, &mut heard, opening, &arrival, &access).await;
        let is_late_hello = match opening {
            Opening::Silent => is_for_the_mesh(&heard, mode),
            _ => Ok(false),
        };
        let spoken = match (is_late_hello, spoken) {
            (Ok(true), _) => {
                access.borrow_mut().discard();
                return Ok(Then::Mesh(heard.into_bytes()));
            }
            (_, Ok(Spoken::Http(framing))) => {
                // Its requests have records and places of their own.
                access.borrow_mut().discard();
                drop(access);
                return self.http_on(stream, heard.into_bytes(), framing, arrival).await;
            }
            (Ok(false), Ok(Spoken::Opaque(admitted))) => Ok(admitted),
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
        };
        let relayed = match spoken {
            Ok(admitted) => self.relay_bytes(stream, heard.into_bytes(), admitted, &arrival, &access).await,
            Err(refusal) => Err(refusal),
        };
        match relayed {
            Ok(()) => stream.is_whole(),
            Err(refusal) => note(&mut access.borrow_mut().record, &refusal),
        }
        Ok(Then::Ended)
    }

    /// Serves HTTP until it ends; `first` was already read.
    pub(super) async fn http_on<C: Conduit>(
        self: Rc<Self>,
        stream: &mut C,
        first: Bytes,
        framing: Framing,
        arrival: Rc<Arrival>,
    ) -> Result<Then, Refusal> {
        let names = Names::at(&self.mesh.snapshot().own, arrival.destination.port());
        let framing = framing.spelt(names).spelt(Names::asked_by(&first));
        let ended = {
            let io = Prefixed::new(first, &mut *stream);
            let receiver = Rc::clone(&self);
            // What the peer proved holds no longer than its certificate: what is in flight ends in order, nothing new begins.
            let shutdown =
                Shutdown { draining: self.shutdown.draining.child_token(), ..self.shutdown.clone() };
            let expired = shutdown.draining.clone();
            let expiry = Rc::clone(&arrival);
            let served = serve::serve(io, framing, self.limits, &shutdown, move |request, verdict| {
                let (receiver, arrival) = (Rc::clone(&receiver), Rc::clone(&arrival));
                let version = request.version();
                // Told that nothing new begins, an honest peer does not ask.
                if arrival.has_expired() {
                    return Either::Left(ready(receiver.too_late(&arrival)));
                }
                // Of a client that has gone, the server of this connection drops the requests itself.
                let answer = receiver.answer(arrival, request, Source::Application(verdict), pending());
                Either::Right(answer.map(move |mut answer| {
                    // hyper knows what HTTP/1.0 cannot bear.
                    *answer.version_mut() =
                        if version == Version::HTTP_10 { Version::HTTP_11 } else { version };
                    answer
                }))
            });
            let mut served = pin!(served);
            tokio::select! {
                ended = served.as_mut() => ended,
                () = expiry.expiry() => {
                    expired.cancel();
                    served.await
                }
            }
        };
        match ended {
            Ended::InOrder => {
                stream.is_whole();
                // Said here too: hyper leaves it out where an upgrade was asked for and not granted.
                let _ = tokio::time::timeout(self.limits.handshake, stream.shutdown()).await;
            }
            Ended::Cut => {}
            Ended::Late => return Err(Refusal::HeadTimeout),
        }
        Ok(Then::Ended)
    }

    async fn relay_bytes<C: Conduit>(
        &self,
        stream: &mut C,
        first: Bytes,
        Admitted { mut server, ends }: Admitted,
        arrival: &Arrival,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        server.resets_unless_whole();
        access.borrow_mut().opened();
        let counts = Counts::default();
        let ended = tokio::select! {
            ended = conduit::between(stream, first, &mut server, &counts, self.limits.idle) => {
                ended.map_err(|error| broken(arrival, &error))
            }
            refusal = ends => Err(refusal),
        };
        let record = &mut access.borrow_mut().record;
        (record.bytes_in, record.bytes_out) = (counts.up.get(), counts.down.get());
        if ended.is_ok() {
            server.is_whole();
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
