//! A connection that becomes another protocol's by a request (RFC 9110 7.8), such as WebSocket's. The request and its answer
//! are HTTP/1.1 on every leg; after 101 the bytes of both sides are relayed, until either the bytes or what allowed them end.
//!
//! Nothing that a client sends before the 101 is passed on before it, and no other answer switches anything. Knows neither
//! who asked nor whether it was allowed. h2c is not offered.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};

use crate::{
    exchange::{
        body::{Body, error_text},
        headers::clean_answer,
        ledger::{SharedAccess, note},
        limits::{MAX_HEAD, MAX_HEADERS},
    },
    net::{
        conduit::{self, Conduit},
        detect::Prefixed,
        pipe::Pipe,
        relay::{Counts, RelayError},
    },
    refusal::Refusal,
    shutdown::Shutdown,
    tls::TlsStream,
};

const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// The server's end.
#[derive(Debug)]
pub enum Far {
    /// In plaintext.
    Open(TcpStream),
    /// Under mutual TLS.
    Sealed(TlsStream),
    /// In the own pod.
    Own(Pipe),
}

/// How a server answered.
#[derive(Debug)]
pub enum Asked {
    /// As any request.
    Answered(Response<Body>),
    /// It speaks the other protocol now; what it has said of it already comes with it.
    Switched(Response<()>, Far, Bytes),
}

/// Two ends of a switched connection, kept by the body of the 101 until that has been sent.
pub struct Upgrade {
    /// The server's end.
    pub far: Far,
    /// What it has said already.
    pub first: Bytes,
    /// What ends it, whatever is said.
    pub ends: LocalBoxFuture<'static, Refusal>,
    /// It may rest this long.
    pub idle: Duration,
    /// Its record.
    pub access: SharedAccess,
}

/// The one protocol that a request without a body wants to switch to.
#[must_use]
pub fn wanted(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let is_one = protocols.next().is_none() && protocol.as_bytes().iter().all(|byte| is_of_a_name(*byte));
    let is_h2c = protocol.as_bytes().get(..3).is_some_and(|name| name.eq_ignore_ascii_case(b"h2c"));
    let mut named = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let is_named = named.any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    (version == Version::HTTP_11 && is_named && is_one && !is_h2c && !protocol.is_empty())
        .then(|| protocol.clone())
}

// RFC 9110 5.6.2 and 7.8: a token, and perhaps a version behind a slash.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte)
}

/// Says it, after the hop's own headers were removed.
pub fn say(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.remove(header::TE);
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, protocol);
}

/// Asks the server at `far`, on a connection that is used for nothing else.
///
/// # Errors
/// What happened instead of an answer.
pub async fn ask(far: Far, request: Request<Body>, shutdown: &Shutdown) -> Result<Asked, String> {
    match far {
        Far::Open(io) => ask_on(io, request, shutdown, Far::Open).await,
        Far::Sealed(io) => ask_on(io, request, shutdown, Far::Sealed).await,
        Far::Own(io) => ask_on(io, request, shutdown, Far::Own).await,
    }
}

async fn ask_on<C: Conduit + 'static>(
    io: C,
    mut request: Request<Body>,
    shutdown: &Shutdown,
    made: fn(C) -> Far,
) -> Result<Asked, String> {
    io.resets_unless_whole();
    *request.version_mut() = Version::HTTP_11;
    let (mut send, connection) = http1::Builder::new()
        .title_case_headers(true)
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| error_text(&error))?;
    let (tell, told) = oneshot::channel();
    let forced = shutdown.forced.clone();
    shutdown.tasks.spawn_local(async move {
        let parts = tokio::select! {
            parts = connection.without_shutdown() => parts,
            () = forced.cancelled() => return,
        };
        // Nobody waits for what was not switched: it ends in order.
        if let Ok(parts) = parts
            && let Err((io, _)) = tell.send((parts.io.into_inner(), parts.read_buf))
        {
            io.is_whole();
        }
    });
    let answer = send.send_request(request).await.map_err(|error| error_text(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Asked::Answered(answer.map(Body::from)));
    }
    let (io, first) = told.await.map_err(|_| "it ended as it switched".to_owned())?;
    let (mut head, _) = answer.into_parts();
    let protocol = head.headers.remove(header::UPGRADE).ok_or("it does not say to what it switches")?;
    clean_answer(&mut head.headers);
    say(&mut head.headers, protocol);
    Ok(Asked::Switched(Response::from_parts(head, ()), made(io), first))
}

impl Upgrade {
    /// The answer that tells the client, with what becomes of the connection then.
    #[must_use]
    pub fn answer(self, head: Response<()>) -> Response<Body> {
        self.access.borrow_mut().record.status = Some(head.status().as_u16());
        head.map(|()| Body::empty().keeping(self))
    }

    /// Relays until both have said all; `early` was read of the client already. Anything else is told, and is no end in
    /// order for either.
    ///
    /// # Errors
    /// Why it was cut.
    pub async fn relay(mut self, client: impl AsyncRead + AsyncWrite, early: Bytes) -> Result<(), Refusal> {
        let (counts, idle) = (Counts::default(), self.idle);
        self.access.borrow_mut().opened();
        let relayed = async {
            match &mut self.far {
                Far::Open(io) => {
                    conduit::between(client, early, Prefixed::new(self.first, io), &counts, idle).await
                }
                Far::Sealed(io) => {
                    conduit::between(client, early, Prefixed::new(self.first, io), &counts, idle).await
                }
                Far::Own(io) => {
                    conduit::between(client, early, Prefixed::new(self.first, io), &counts, idle).await
                }
            }
        };
        let ended = tokio::select! {
            ended = relayed => ended.map_err(|error| match error {
                RelayError::Idle => Refusal::Idle,
                RelayError::Socket(_) | RelayError::Stream(_) => Refusal::ClientGone,
            }),
            refusal = self.ends => Err(refusal),
        };
        let record = &mut self.access.borrow_mut().record;
        (record.bytes_in, record.bytes_out) = (counts.up.get(), counts.down.get());
        match &ended {
            Ok(()) => match &self.far {
                Far::Open(io) => io.is_whole(),
                Far::Sealed(io) => io.is_whole(),
                Far::Own(io) => io.is_whole(),
            },
            Err(refusal) => note(record, refusal),
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(upgrade: &'static str, connection: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
        wanted(Version::HTTP_11, &headers).is_some()
    }

    #[test]
    fn one_named_protocol_is_wanted_and_never_h2c() {
        assert!(wants("websocket", "Upgrade"));
        assert!(wants("IRC/6.9", "keep-alive, upgrade"));
        for (upgrade, connection) in [
            ("websocket", "keep-alive"),
            ("h2c", "upgrade"),
            ("H2C", "upgrade"),
            ("a, b", "upgrade"),
            ("", "upgrade"),
        ] {
            assert!(!wants(upgrade, connection), "{upgrade:?} by {connection:?}");
        }
    }
}
