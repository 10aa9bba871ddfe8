//! How a connection begins where plaintext is taken (PERMISSIVE, DISABLE): mesh TLS, HTTP, or opaque bytes.
//!
//! Everything but a ClientHello for the mesh is the application's own, other TLS included. Knows not what is served then.

use std::time::Instant;

use bytes::Bytes;
use douane_proto::{mesh::Protocol, mtls::MtlsMode};
use tokio::net::TcpStream;

use crate::{
    inbound::receiver::Receiver,
    net::detect::{Heard, Opening, SILENCE},
    refusal::Refusal,
    telemetry::access::Direction,
    tls::hello::{self, Hello},
};

/// What a connection begins with.
#[derive(Debug)]
pub(super) enum Beginning {
    /// A ClientHello for the mesh, whole.
    Mesh(Bytes),
    /// Something else.
    Plain(Plain),
}

/// The beginning of plaintext.
#[derive(Debug)]
pub(super) struct Plain {
    /// What it speaks.
    pub(super) opening: Opening,
    /// What was read of it.
    pub(super) heard: Heard,
}

impl Receiver {
    /// Reads the beginning of a connection to `port`. A silent client is waited for where only HTTP is acceptable;
    /// elsewhere it may wait for the application to speak first.
    pub(super) async fn beginning(
        &self,
        stream: &mut TcpStream,
        mode: MtlsMode,
        port: u16,
    ) -> Result<Beginning, Refusal> {
        let declared = self.mesh.snapshot().own.protocol(port);
        if (mode, declared) == (MtlsMode::Disable, Protocol::Tcp) {
            return Ok(Beginning::Plain(Plain { opening: Opening::Other, heard: Heard::default() }));
        }
        let mut heard = if declared == Protocol::Tcp { Heard::of_bytes() } else { Heard::default() };
        let silence = if self.must_be_http(declared, port) { self.limits.head } else { SILENCE };
        let since = Instant::now();
        let listening = heard.listen_for(stream, silence, &self.limits);
        let opening = listening.await.map_err(|_| Refusal::ClientGone)?;
        if declared == Protocol::Undeclared {
            self.ledger.detected(Direction::Inbound, opening, since);
        }
        if is_for_the_mesh(&heard, mode)? {
            return Ok(Beginning::Mesh(heard.into_bytes()));
        }
        Ok(Beginning::Plain(Plain { opening, heard }))
    }

    /// Is HTTP all that may be served there: declared, or the only thing that the law can allow?
    pub(super) fn must_be_http(&self, declared: Protocol, port: u16) -> bool {
        match declared {
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => true,
            Protocol::Tcp => false,
            Protocol::Undeclared => self.mesh.policies().borrow().needs_http(port),
        }
    }
}

/// Did a peer's sidecar begin its handshake, where that is taken as well?
pub(super) fn is_for_the_mesh(heard: &Heard, mode: MtlsMode) -> Result<bool, Refusal> {
    if mode == MtlsMode::Disable || !heard.is_handshake() {
        return Ok(false);
    }
    match hello::look(heard.bytes()) {
        Hello::Mesh => Ok(true),
        Hello::Foreign => Ok(false),
        Hello::Unfinished => Err(Refusal::HandshakeTimeout),
    }
}
