//! A pipe within the sidecar that tells its two ends apart as a socket does: an end that was dropped before all was said is
//! a reset for the other, and no end of what it reads.
//!
//! Knows not who talks. On one thread only, as everything here.

use std::{
    cell::Cell,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// One end.
#[derive(Debug)]
pub struct Pipe {
    io: DuplexStream,
    resets: Cell<bool>,
    is_cut: Rc<Cell<bool>>,
}

/// Two ends, and so many bytes at most on their way in each direction.
#[must_use]
pub fn pipe(bytes: usize) -> (Pipe, Pipe) {
    let (one, other) = tokio::io::duplex(bytes);
    let is_cut = Rc::<Cell<bool>>::default();
    let end = |io, is_cut| Pipe { io, resets: Cell::new(false), is_cut };
    (end(one, Rc::clone(&is_cut)), end(other, is_cut))
}

impl Pipe {
    /// From now on the other end sees a reset, should this one be dropped for any reason.
    pub fn resets_unless_whole(&self) {
        self.resets.set(true);
    }

    /// All was said.
    pub fn is_whole(&self) {
        self.resets.set(false);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.resets.get() {
            self.is_cut.set(true);
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 && self.is_cut.get() {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_was_cut_is_read_to_there_and_is_no_end() {
        let (mut near, mut far) = pipe(64);
        near.resets_unless_whole();
        near.write_all(b"half").await.unwrap();
        drop(near);

        let mut read = Vec::new();
        let ended = far.read_to_end(&mut read).await;

        assert_eq!(
            (&*read, ended.map_err(|error| error.kind())),
            (&b"half"[..], Err(ErrorKind::ConnectionReset))
        );
    }

    #[tokio::test]
    async fn what_is_whole_ends_in_order() {
        let (mut near, mut far) = pipe(64);
        near.resets_unless_whole();
        near.write_all(b"whole").await.unwrap();
        near.is_whole();
        drop(near);

        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();

        assert_eq!(read, "whole");
    }
}
