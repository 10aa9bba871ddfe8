//! How a connection begins where plaintext is taken (PERMISSIVE, DISABLE): mesh TLS, HTTP, or opaque bytes.
//!
//! Everything but a ClientHello for the mesh is the application's own, other TLS included. Knows not what is served then.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use douane_proto::{mesh::Protocol, mtls::MtlsMode};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};

use crate::{
    inbound::receiver::Receiver,
    net::detect::{Opening, SILENCE, classify, detect},
    refusal::Refusal,
    tls::hello::{self, Hello},
};

const READ: usize = 4 * 1024;

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
    pub(super) first: Bytes,
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
            return Ok(Beginning::Plain(Plain { opening: Opening::Silent, first: Bytes::new() }));
        }
        let patience = if self.must_be_http(declared, port) { self.limits.head } else { SILENCE };
        if mode == MtlsMode::Disable {
            let (opening, first) = detect(stream, patience).await.map_err(|_| Refusal::ClientGone)?;
            return Ok(Beginning::Plain(Plain { opening, first }));
        }
        read_beginning(stream, patience, self.limits.handshake).await
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

async fn read_beginning(
    stream: &mut TcpStream,
    patience: Duration,
    handshake: Duration,
) -> Result<Beginning, Refusal> {
    let start = Instant::now();
    let mut read = BytesMut::new();
    loop {
        let hello = hello::look(&read);
        match (hello, classify(&read)) {
            (Hello::Mesh, _) => return Ok(Beginning::Mesh(read.freeze())),
            (Hello::Foreign, Some(opening)) => return Ok(plain(opening, read)),
            _ => {}
        }
        // Whoever has begun a handshake gets the time for one.
        let in_handshake = hello == Hello::Unfinished && !read.is_empty();
        let until = start + if in_handshake { handshake } else { patience };
        read.reserve(READ);
        match tokio::time::timeout_at(until, stream.read_buf(&mut read)).await {
            Err(_) if in_handshake => return Err(Refusal::HandshakeTimeout),
            Err(_) => return Ok(plain(Opening::Silent, read)),
            Ok(Ok(0)) if read.is_empty() => return Ok(plain(Opening::Closed, read)),
            Ok(Ok(0)) => return Ok(plain(Opening::Other, read)),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(Refusal::ClientGone),
        }
    }
}

fn plain(opening: Opening, read: BytesMut) -> Beginning {
    Beginning::Plain(Plain { opening, first: read.freeze() })
}
