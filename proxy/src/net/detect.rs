//! What the first bytes of a connection speak: HTTP/1, HTTP/2, TLS, or something opaque.
//!
//! The bytes are read, not peeked, and handed on: [`Prefixed`] gives them out again. Knows not what was declared, nor
//! what is done with a protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A request line of HTTP/1.0 or 1.1.
    Http1,
    /// The connection preface of HTTP/2 with prior knowledge.
    Http2,
    /// A TLS handshake record.
    Tls,
    /// Something else.
    Other,
    /// Nothing that could be told in time: silence, or a beginning that fits several.
    Silent,
    /// The end of the stream, before anything could be told.
    Closed,
}

/// How long an undeclared port's client may be silent before its connection counts as opaque (it may wait for the
/// server to speak first).
pub const SILENCE: Duration = Duration::from_millis(100);

// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// A request line longer than this is none.
const MAX_LINE: usize = 16 * 1024;
const READ: usize = 4 * 1024;

/// What `bytes` begin; `None` when more are needed to tell.
#[must_use]
pub fn classify(bytes: &[u8]) -> Option<Opening> {
    if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
        return None;
    }
    if bytes.starts_with(PREFACE) {
        return Some(Opening::Http2);
    }
    // A handshake record (22) of TLS 1.0 to 1.3 (all say version 3.x).
    if let [0x16, 0x03, ..] = bytes {
        return Some(Opening::Tls);
    }
    if bytes == [0x16] {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; 0];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        // The version is the last word of the request line: with it, the line is whole.
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Some(Opening::Http1),
        Err(_) if request.version.is_some() => Some(Opening::Http1),
        Err(_) => Some(Opening::Other),
    }
    .filter(|opening| *opening != Opening::Http1 || request.version.is_some())
    .or_else(|| (bytes.len() >= MAX_LINE).then_some(Opening::Other))
}

/// Reads until it can be told what the stream speaks, at most for `patience`. The bytes read come back with it.
///
/// # Errors
/// As the stream says.
pub async fn detect(io: &mut (impl AsyncRead + Unpin), patience: Duration) -> io::Result<(Opening, Bytes)> {
    let mut read = BytesMut::new();
    let telling = async {
        loop {
            read.reserve(READ);
            if io.read_buf(&mut read).await? == 0 {
                return io::Result::Ok(if read.is_empty() { Opening::Closed } else { Opening::Other });
            }
            if let Some(opening) = classify(&read) {
                return Ok(opening);
            }
        }
    };
    let opening = match tokio::time::timeout(patience, telling).await {
        Ok(told) => told?,
        // `read_buf` is cancel-safe: no byte is lost.
        Err(_) => Opening::Silent,
    };
    Ok((opening, read.freeze()))
}

/// A stream whose first bytes were already read.
#[derive(Debug)]
pub struct Prefixed<T> {
    prefix: Bytes,
    io: T,
}

impl<T> Prefixed<T> {
    /// Gives `prefix` out first.
    pub fn new(prefix: Bytes, io: T) -> Self {
        Self { prefix, io }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let fits = self.prefix.len().min(buf.remaining());
        let part = self.prefix.split_to(fits);
        buf.put_slice(part.chunk());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], Some(Opening::Http1)),
            (b"GET / HTTP/1.0\r\n", Some(Opening::Http1)),
            (b"PURGE /x HTTP/1.1\r\nHo", Some(Opening::Http1)),
            (b"GET / HT", None),
            (b"G", None),
            (b"", None),
            (PREFACE, Some(Opening::Http2)),
            (b"PRI * HT", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some(Opening::Http2)),
            (b"\x16\x03\x01\x02\x00\x01", Some(Opening::Tls)),
            (b"\x16", None),
            (b"EHLO example.com\r\n", Some(Opening::Other)),
            (b"GET key\r\n", Some(Opening::Other)),
            (b"\x00\x00\x00\x08", Some(Opening::Other)),
            (b"*3\r\n$3\r\n", Some(Opening::Other)),
        ] {
            assert_eq!(classify(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn a_silent_client_is_told_after_its_patience_and_no_byte_is_lost() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"GE").await.unwrap();

        let (opening, read) = detect(&mut server, SILENCE).await.unwrap();

        assert_eq!((opening, &read[..]), (Opening::Silent, &b"GE"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_verdict_never_depends_on_how_they_were_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..200,
        ) {
            if let Some(early) = bytes.get(..cut.min(bytes.len())).and_then(classify) {
                prop_assert_eq!(classify(&bytes), Some(early));
            }
        }
    }
}
