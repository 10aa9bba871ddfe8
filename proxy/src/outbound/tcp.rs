//! One opaque connection of the application: a stream on a line to its peer, or plain bytes to where no sidecar is.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, RecvStream, client::ResponseFuture, ext::Protocol};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::net::TcpStream;

use crate::{
    exchange::ledger::{SharedAccess, note},
    net::relay::{self, Counts, RelayError},
    outbound::{
        resolve::{Candidate, Reach, Route},
        sender::{Sender, Way},
    },
    refusal::Refusal,
    telemetry::access::Direction,
};

/// The protocol of opaque streams (extended CONNECT, RFC 8441).
const OPAQUE: &str = "douane-tcp";
/// Lines tried for one stream whose line ended before it was opened.
const MAX_LINES: usize = 4;

// How a relay can end but well.
enum Ended {
    Refused(Refusal),
    Relay(RelayError),
}

impl From<RelayError> for Ended {
    fn from(error: RelayError) -> Self {
        Self::Relay(error)
    }
}

impl Sender {
    /// Serves an opaque connection; `first` was already read from it.
    pub(super) async fn opaque(
        &self,
        destination: SocketAddr,
        mut client: TcpStream,
        first: Bytes,
        route: Result<Route, Refusal>,
    ) {
        let access = self.ledger.begin_traced(Direction::Outbound, destination, &HeaderMap::new());
        let counts = Counts::default();
        relay::resets_unless_whole(&client);
        let relayed = async {
            let Route { service, reach, .. } = route?;
            access.borrow_mut().record.service = service;
            let way = match reach {
                Reach::Mesh(candidates) => self.way(candidates),
                Reach::Plain(addresses) => Way::Open(addresses),
                Reach::Outside(address) => Way::Open(vec![address]),
            };
            match way {
                Way::Sealed(candidates) => {
                    self.as_stream(&candidates, &mut client, first, &counts, &access).await
                }
                Way::Open(addresses) => self.as_it_is(&addresses, &mut client, first, &counts, &access).await,
            }
        };
        let ended = tokio::select! {
            ended = relayed => ended,
            () = tokio::time::sleep(self.limits.stream_age) => Err(Refusal::StreamAge),
        };
        let record = &mut access.borrow_mut().record;
        (record.bytes_in, record.bytes_out) = (counts.up.get(), counts.down.get());
        match ended {
            Ok(()) => relay::is_whole(&client),
            Err(refusal) => note(record, &refusal),
        }
    }

    async fn as_stream(
        &self,
        candidates: &[Candidate],
        client: &mut TcpStream,
        first: Bytes,
        counts: &Counts,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        for _ in 0..MAX_LINES {
            let (line, _in_flight, address) = self.reach(candidates, access).await?;
            // Nothing was sent on a line that had just ended: the next one takes it.
            let Ok(mut open) = line.ready().await else { continue };
            let request = connect_request(address, access);
            let (answer, mut send) = open
                .send_request(request, false)
                .map_err(|error| Refusal::UpstreamFailed { address, reason: error.to_string() })?;
            let answer = async {
                let accepted = accepted(answer, address).await?;
                access.borrow_mut().opened();
                Ok(accepted)
            };
            let relayed =
                relay::client_to_stream(client, first, &mut send, answer, counts, self.limits.idle).await;
            return relayed.map_err(|ended| {
                send.send_reset(Reason::CANCEL);
                match ended {
                    Ended::Refused(refusal) => refusal,
                    Ended::Relay(error) => broken(address, &error),
                }
            });
        }
        Err(Refusal::Draining)
    }

    async fn as_it_is(
        &self,
        addresses: &[SocketAddr],
        client: &mut TcpStream,
        first: Bytes,
        counts: &Counts,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        let mut tried = Vec::new();
        let mut last = Refusal::Draining;
        while let Some((address, _in_flight)) = self.balancer.pick(addresses, &tried) {
            access.borrow_mut().record.peer_address = Some(address);
            match self.origins.connect(address).await {
                Ok(mut server) => {
                    access.borrow_mut().opened();
                    relay::resets_unless_whole(&server);
                    let relayed = relay::sockets(client, first, &mut server, counts, self.limits.idle).await;
                    relayed.map_err(|error| broken(address, &error))?;
                    relay::is_whole(&server);
                    return Ok(());
                }
                Err(refusal) => {
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
    if let Some(trace) = &access.borrow().record.trace {
        trace.write_to(request.headers_mut());
    }
    request
}

async fn accepted(answer: ResponseFuture, address: SocketAddr) -> Result<RecvStream, Ended> {
    let answer = answer.await.map_err(RelayError::from)?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(Ended::Refused(Refusal::PeerRefused { address, status })),
    }
}

fn broken(address: SocketAddr, error: &RelayError) -> Refusal {
    match error {
        RelayError::Idle => Refusal::Idle,
        RelayError::Stream(error) => Refusal::UpstreamFailed { address, reason: error.to_string() },
        RelayError::Socket(_) => Refusal::ClientGone,
    }
}
