//! The socket of a server that may answer, and go, before it has read all: what it no longer reads is no reason to lose its
//! answer.
//!
//! Knows not what is said on it: once a write has failed, reading alone tells how it ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose failed writes are as good as written.
#[derive(Debug)]
pub struct Forgiving<T> {
    io: T,
    is_deaf: bool,
}

impl<T> Forgiving<T> {
    /// Forgives `io`.
    pub fn new(io: T) -> Self {
        Self { io, is_deaf: false }
    }

    fn forgive<R>(&mut self, written: Poll<io::Result<R>>, instead: R) -> Poll<io::Result<R>> {
        match written {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
                ) =>
            {
                self.is_deaf = true;
                Poll::Ready(Ok(instead))
            }
            written => written,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Forgiving<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Forgiving<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.forgive(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.forgive(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.forgive(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.forgive(shut, ())
    }
}
