//! A connection that carries one conversation, whatever protects it: its ends are told apart (whole, or cut), and two of
//! them are relayed as sockets are.
//!
//! Knows neither who talks nor what. Many conversations on one connection are streams: see [`super::relay`].

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    net::{
        chunk,
        detect::Speaker,
        pipe::Pipe,
        relay::{self, Counts, RelayError},
    },
    tls::TlsStream,
};

/// A connection of one conversation.
pub trait Conduit: AsyncRead + AsyncWrite + Speaker + Unpin {
    /// From now on its other end sees a reset, should it be dropped for any reason.
    fn resets_unless_whole(&self);

    /// All was said: it ends in order.
    fn is_whole(&self);
}

impl Conduit for TcpStream {
    fn resets_unless_whole(&self) {
        relay::resets_unless_whole(self);
    }

    fn is_whole(&self) {
        relay::is_whole(self);
    }
}

impl Conduit for TlsStream {
    fn resets_unless_whole(&self) {
        self.on_socket(relay::resets_unless_whole);
    }

    fn is_whole(&self) {
        self.on_socket(relay::is_whole);
    }
}

impl Conduit for Pipe {
    fn resets_unless_whole(&self) {
        Self::resets_unless_whole(self);
    }

    fn is_whole(&self) {
        Self::is_whole(self);
    }
}

/// Relays between the one who asked and the one who was asked; `first` was already read from the client.
///
/// # Errors
/// [`RelayError`], when it did not end with both sides' ends of stream.
pub async fn between(
    client: impl AsyncRead + AsyncWrite,
    first: Bytes,
    server: impl AsyncRead + AsyncWrite,
    counts: &Counts,
    idle: Duration,
) -> Result<(), RelayError> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = async {
        if !first.is_empty() {
            to_server.write_all(&first).await?;
            to_server.flush().await?;
            counts.up(first.len());
        }
        copy(&mut from_client, &mut to_server, |bytes| counts.up(bytes)).await
    };
    let down = copy(&mut from_server, &mut to_client, |bytes| counts.down(bytes));
    relay::bounded(async { tokio::try_join!(up, down).map(drop) }, counts, idle).await
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: impl Fn(usize),
) -> Result<(), RelayError> {
    while let Some(chunk) = poll_fn(|cx| chunk::poll_read(from, cx)).await? {
        to.write_all(&chunk).await?;
        to.flush().await?;
        count(chunk.len());
    }
    Ok(to.shutdown().await?)
}
