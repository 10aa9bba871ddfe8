//! One stream of an HTTP/2 connection as a reader and writer, for opaque bytes that turned out to be HTTP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::reading::Reading;

/// Both directions of a stream.
#[derive(Debug)]
pub struct StreamIo {
    recv: RecvStream,
    reading: Reading,
    send: SendStream<Bytes>,
    // Received, not yet read.
    rest: Bytes,
}

impl StreamIo {
    /// Joins both directions.
    #[must_use]
    pub fn new(recv: RecvStream, send: SendStream<Bytes>) -> Self {
        Self { recv, reading: Reading::default(), send, rest: Bytes::new() }
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { recv, reading, rest, .. } = &mut *self;
        while rest.is_empty() {
            match ready!(reading.poll_data(recv, cx)) {
                Some(Ok(bytes)) => *rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let fits = rest.len().min(buf.remaining());
        let part = rest.split_to(fits);
        buf.put_slice(part.chunk());
        recv.flow_control().release_capacity(fits).map_err(broken)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        let capacity = match ready!(self.send.poll_capacity(cx)) {
            Some(capacity) => capacity.map_err(broken)?,
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let part = buf.get(..capacity.min(buf.len())).unwrap_or_default();
        self.send.send_data(Bytes::copy_from_slice(part), false).map_err(broken)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
