//! Towards peers that speak Istio's dialect: HTTP as the application speaks it, and bytes as they are, inside mutual TLS.
//! HTTP/1 connections carry one request at a time and are used again, HTTP/2 connections carry many, bytes get one each.
//!
//! Our own dialect is offered first: whoever answers it is one of ours after all, and is spoken to as such. Nothing of that
//! dialect is said to anybody else. Knows not who may be asked (the receiver decides), only who must answer.

use std::net::SocketAddr;

use bytes::Bytes;
use douane_proto::request::BadRequest;
use http::{Request, Response, Version, header, uri};
use tokio::net::TcpStream;

use crate::{
    exchange::{
        body::Body,
        clients::{Client, Failed, Opened},
        headers::Speech,
        ledger::SharedAccess,
        names::Names,
    },
    net::{
        conduit::{self, Conduit as _},
        relay::Counts,
    },
    outbound::{
        pool::{Ends, Key},
        resolve::{Candidate, Place},
        sender::Sender,
        words::{Far, broken},
    },
    refusal::Refusal,
    tls::{Alpn, Offer, Session, TlsStream},
};

/// Connections tried for one request whose connection had ended before it was sent.
const MAX_STALE: usize = 4;

/// Who answered.
pub(super) enum Met<Theirs> {
    /// One of ours: the candidate as such.
    Ours(Candidate),
    /// Somebody else.
    Theirs(Theirs),
}

struct Talk {
    key: Key,
    client: Client<Ends>,
}

impl Sender {
    /// Sends a request, assembled as the application spoke, to one of `candidates`.
    pub(super) async fn abroad(
        &self,
        candidates: &[Candidate],
        speech: Speech,
        mut request: Request<Body>,
        access: &SharedAccess,
    ) -> Result<Response<Body>, Refusal> {
        *request.version_mut() = match speech {
            Speech::Http10 => Version::HTTP_10,
            Speech::Http11 => Version::HTTP_11,
            Speech::Http2 => Version::HTTP_2,
        };
        for _ in 0..MAX_STALE {
            let names = Names::of(&request);
            let meet = async |picked: &Candidate| self.meet(picked, speech, names).await;
            let (met, in_flight) = self.one_of(candidates, access, meet).await?;
            let Talk { key, client } = match met {
                Met::Theirs(talk) => talk,
                Met::Ours(peer) => {
                    let (head, body) = to_our_own(request, speech)?;
                    return self.through_mesh(&[peer], head, &mut Some(body), access).await;
                }
            };
            client.known.describe(&mut access.borrow_mut().record);
            access.borrow_mut().hands_over();
            match self.foreign.send(&key, client, request).await {
                Ok(answer) => return Ok(answer.map(|body| body.keeping(in_flight))),
                // Nothing was sent on a connection that had just ended: the next one takes it.
                Err(Failed { unsent: Some(unsent), .. }) => request = unsent,
                Err(Failed { reason, .. }) => {
                    return Err(Refusal::UpstreamFailed { address: key.address(), reason });
                }
            }
        }
        Err(Refusal::Draining)
    }

    /// A connection for bytes to one of `candidates`.
    pub(super) async fn open_foreign(
        &self,
        candidates: &[Candidate],
        access: &SharedAccess,
    ) -> Result<Far, Refusal> {
        let meet = async |picked: &Candidate| self.hail(picked, Offer::Opaque).await;
        let (met, in_flight) = self.one_of(candidates, access, meet).await?;
        let (io, session) = match met {
            Met::Theirs(shaken) => shaken,
            Met::Ours(peer) => return self.open_stream(&[peer], access).await,
        };
        Ends::of(&session).describe(&mut access.borrow_mut().record);
        let address = io.on_socket(TcpStream::peer_addr).map_err(|_| Refusal::ClientGone)?;
        Ok(Far::Foreign { io, session, address, _guard: in_flight })
    }

    /// Relays bytes to such a peer; `first` was already read from the client.
    pub(super) async fn relay_abroad(
        &self,
        client: &mut TcpStream,
        first: Bytes,
        (mut io, session): (TlsStream, Session),
        address: SocketAddr,
        counts: &Counts,
    ) -> Result<(), Refusal> {
        io.resets_unless_whole();
        let ended = tokio::select! {
            ended = conduit::between(client, first, &mut io, counts, self.limits.idle) => {
                ended.map_err(|error| broken(address, &error))
            }
            () = self.pool.distrusted(session) => {
                Err(Refusal::UpstreamFailed { address, reason: "its root of trust has left the bundle".to_owned() })
            }
        };
        if ended.is_ok() {
            io.is_whole();
        }
        ended
    }

    /// The less busy of two; if it cannot be reached, another.
    // A connection that takes one request now.
    async fn meet(&self, picked: &Candidate, speech: Speech, names: Names) -> Result<Met<Talk>, Refusal> {
        let offer = match (speech, names) {
            (Speech::Http2, _) => Offer::Http2,
            (_, Names::Titled) => Offer::Http1,
            // Also to one of ours.
            (_, Names::AsSent) => Offer::Http1Alone,
        };
        let key = self.pool.key(picked, offer);
        if let Some(client) = self.foreign.take(&key, speech) {
            return Ok(Met::Theirs(Talk { key, client }));
        }
        let (io, session) = match self.hail(picked, offer).await? {
            Met::Theirs(shaken) => shaken,
            Met::Ours(peer) => return Ok(Met::Ours(peer)),
        };
        let opened = Opened { io, expires: Some(session.peer_expires()), known: Ends::of(&session), names };
        let begun = self.foreign.begin(&key, speech, opened, self.pool.distrusted(session)).await;
        let address = picked.address;
        let client = begun.map_err(|reason| Refusal::UpstreamFailed { address, reason })?;
        Ok(Met::Theirs(Talk { key, client }))
    }

    // A new connection, unless its peer turned out to be one of ours.
    async fn hail(&self, picked: &Candidate, offer: Offer) -> Result<Met<(TlsStream, Session)>, Refusal> {
        let as_ours = Candidate { place: Place::Peer, server_name: None, ..picked.clone() };
        if offer != Offer::Http1Alone && self.pool.has_line(&as_ours) {
            return Ok(Met::Ours(as_ours));
        }
        let (io, session) = self.pool.dial(&self.pool.key(picked, offer)).await?;
        if session.alpn == Alpn::Douane1 {
            self.pool.adopt(&as_ours, io, session).await?;
            return Ok(Met::Ours(as_ours));
        }
        Ok(Met::Theirs((io, session)))
    }
}

// A request in the form of our own dialect.
fn to_our_own(request: Request<Body>, speech: Speech) -> Result<(Request<()>, Body), BadRequest> {
    let (mut parts, body) = request.into_parts();
    if let (true, Some(host)) = (speech != Speech::Http2, parts.headers.remove(header::HOST)) {
        let mut target = parts.uri.into_parts();
        target.scheme = Some(uri::Scheme::HTTP);
        target.authority = Some(host.as_bytes().try_into().map_err(|_| BadRequest::Uri)?);
        parts.uri = http::Uri::from_parts(target).map_err(|_| BadRequest::Uri)?;
        parts.headers.remove(header::CONNECTION);
    }
    speech.write_to(&mut parts.headers);
    Ok((Request::from_parts(parts, ()), body))
}
