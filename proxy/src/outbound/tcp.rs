//! One opaque connection of the application: a stream on a line to its peer, or plain bytes to where no sidecar is. Where
//! the client is silent either is opened to hear who speaks first (`words`).

use std::{mem, net::SocketAddr};

use bytes::Bytes;
use h2::{Reason, ext::Protocol};
use http::{HeaderMap, Method, Request, Uri};
use tokio::net::TcpStream;

use crate::{
    exchange::{
        ledger::{SharedAccess, note},
        serve::Framing,
    },
    net::{
        detect::{Heard, Opening},
        relay::{self, Counts},
    },
    outbound::{
        resolve::{Candidate, Reach, Route},
        sender::{Sender, Way},
        words::{Answer, Ended, Far, broken},
    },
    refusal::Refusal,
    telemetry::{access::Direction, tracer::Caller},
};

/// The protocol of opaque streams (extended CONNECT, RFC 8441).
const OPAQUE: &str = "douane-tcp";
/// Lines tried for one stream whose line ended before it was opened.
const MAX_LINES: usize = 4;

impl Sender {
    /// Serves an opaque connection to its end, unless its client was silent and then speaks HTTP: that is told. `heard` was
    /// already read, and is what was `said`.
    pub(super) async fn opaque(
        &self,
        destination: SocketAddr,
        client: &mut TcpStream,
        heard: &mut Heard,
        said: Opening,
        route: Result<Route, Refusal>,
    ) -> Option<Framing> {
        let access = self.ledger.begin_traced(
            Direction::Outbound,
            destination,
            &mut HeaderMap::new(),
            Caller::Sidecar,
        );
        let counts = Counts::default();
        relay::resets_unless_whole(client);
        let served = tokio::select! {
            served = self.lead(route, client, (said, heard), &counts, &access) => served,
            () = tokio::time::sleep(self.limits.stream_age) => Err(Refusal::StreamAge),
        };
        let mut access = access.borrow_mut();
        (access.record.bytes_in, access.record.bytes_out) = (counts.up.get(), counts.down.get());
        match served {
            Ok(None) => relay::is_whole(client),
            Ok(Some(framing)) => {
                // Its requests have records of their own.
                access.discard();
                return Some(framing);
            }
            Err(refusal) => note(&mut access.record, &refusal),
        }
        None
    }

    async fn lead(
        &self,
        route: Result<Route, Refusal>,
        client: &mut TcpStream,
        (said, heard): (Opening, &mut Heard),
        counts: &Counts,
        access: &SharedAccess,
    ) -> Result<Option<Framing>, Refusal> {
        let Route { service, reach, .. } = route?;
        access.borrow_mut().record.service = service;
        let way = match reach {
            Reach::Mesh(candidates) => self.way(candidates),
            Reach::Plain(addresses) => Way::Open(addresses),
            Reach::Outside(address) => Way::Open(vec![address]),
        };
        let is_silent = said == Opening::Silent;
        let port = access.borrow().record.destination.port();
        if is_silent
            && let Way::Sealed(candidates) = &way
            && self.http_only.is_known_of(candidates)
        {
            return self.hear_request(client, heard, port).await;
        }
        let mut far = match way {
            Way::Sealed(candidates) => self.open_stream(&candidates, access).await?,
            Way::Foreign(candidates) => self.open_foreign(&candidates, access).await?,
            Way::Open(addresses) => self.open_socket(&addresses, access).await?,
        };
        if is_silent {
            match self.hear(&mut far, client, heard, counts).await {
                Ok(Some(framing)) => {
                    far.let_go();
                    return Ok(Some(framing));
                }
                Ok(None) => {}
                Err(refusal) if self.http_only.learn(&refusal) => {
                    return self.hear_request(client, heard, port).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        access.borrow_mut().record.sni = heard.server_name().map(Into::into);
        let first = mem::take(heard).into_bytes();
        self.relay(far, client, first, counts, access).await.map(|()| None)
    }

    async fn relay(
        &self,
        far: Far,
        client: &mut TcpStream,
        first: Bytes,
        counts: &Counts,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        let idle = self.limits.idle;
        match far {
            Far::Stream { answer, mut send, address, _guards } => {
                let accepted = async {
                    let recv = answer.accepted(address).await?;
                    access.borrow_mut().opened();
                    Ok(recv)
                };
                let relayed = relay::client_to_stream(client, first, &mut send, accepted, counts, idle).await;
                relayed.map_err(|ended: Ended| {
                    send.send_reset(Reason::CANCEL);
                    ended.refusal(address)
                })
            }
            Far::Foreign { io, session, address, _guard } => {
                access.borrow_mut().opened();
                self.relay_abroad(client, first, (io, session), address, counts).await
            }
            Far::Server { mut server, address, _guard } => {
                access.borrow_mut().opened();
                relay::resets_unless_whole(&server);
                let relayed = relay::sockets(client, first, &mut server, counts, idle).await;
                relayed.map_err(|error| broken(address, &error))?;
                relay::is_whole(&server);
                Ok(())
            }
        }
    }

    pub(super) async fn open_stream(
        &self,
        candidates: &[Candidate],
        access: &SharedAccess,
    ) -> Result<Far, Refusal> {
        for _ in 0..MAX_LINES {
            let (line, in_flight, address) = self.reach(candidates, access).await?;
            // Nothing was sent on a line that had just ended: the next one takes it.
            let Ok(mut open) = line.ready().await else { continue };
            let (answer, send) = open
                .send_request(connect_request(address, access), false)
                .map_err(|error| Refusal::UpstreamFailed { address, reason: error.to_string() })?;
            return Ok(Far::Stream {
                answer: Answer::new(answer),
                send,
                address,
                _guards: (line, in_flight),
            });
        }
        Err(Refusal::Draining)
    }

    async fn open_socket(&self, addresses: &[SocketAddr], access: &SharedAccess) -> Result<Far, Refusal> {
        let mut tried = Vec::new();
        let mut last = Refusal::Draining;
        while let Some((address, in_flight)) = self.balancer.pick(addresses, &tried) {
            access.borrow_mut().record.peer_address = Some(address);
            match self.origins.connect(address).await {
                Ok(server) => return Ok(Far::Server { server, address, _guard: in_flight }),
                Err(refusal) => {
                    self.failed_at(&in_flight, &refusal);
                    tried.push(address);
                    last = refusal;
                }
            }
        }
        Err(last)
    }
}

fn connect_request(address: SocketAddr, access: &SharedAccess) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = address.to_string().parse().ok();
    uri.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    // Of an address and constants: always a URI.
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    request.extensions_mut().insert(Protocol::from_static(OPAQUE));
    access.borrow().write_trace(request.headers_mut());
    request
}
