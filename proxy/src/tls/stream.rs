//! The stream that the data path reads and writes. Writes are gathered and leave when `cork` says; a flush is a promise
//! that they will, not a wait until they have. Belongs to one thread.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{cork, wire::Wire};

/// A TLS stream whose writes are corked: gathered until the runtime is about to sleep, then sent at once.
///
/// On a runtime without [`super::park_flush`] a flush sends and waits, as any other stream's.
#[derive(Debug)]
pub struct TlsStream {
    wire: Rc<RefCell<Wire>>,
}

impl TlsStream {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire: Rc::new(RefCell::new(wire)) }
    }

    /// Does something to the socket below.
    pub fn on_socket<Done>(&self, act: impl FnOnce(&TcpStream) -> Done) -> Done {
        act(self.wire.borrow().socket())
    }

    fn poll_gather(&self, cx: &Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        cork::flush_overdue();
        let mut wire = self.wire.borrow_mut();
        wire.check_open()?;
        if wire.is_full() {
            ready!(self.poll_make_room(cx, &mut wire))?;
        }
        let taken = wire.gather(pieces)?;
        if cork::is_hooked() {
            cork::mark(&self.wire, &mut wire);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_make_room(&self, cx: &Context<'_>, wire: &mut Wire) -> Poll<io::Result<()>> {
        match self.poll_send(cx, wire)? {
            Poll::Pending if wire.is_full() => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    // All left, or `cx` is woken when there is room again.
    fn poll_send(&self, cx: &Context<'_>, wire: &mut Wire) -> Poll<io::Result<()>> {
        if !cork::is_hooked() {
            let mut cx = Context::from_waker(cx.waker());
            return wire.poll_send_all(&mut cx);
        }
        cork::flush(&self.wire, wire);
        wire.check()?;
        if !wire.has_unsent() {
            return Poll::Ready(Ok(()));
        }
        wire.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        cork::flush_overdue();
        let mut wire = self.wire.borrow_mut();
        let read = wire.poll_receive(cx, buffer);
        // What was read may demand an answer of its own, such as new keys.
        if wire.wants_answer() {
            if cork::is_hooked() {
                cork::mark(&self.wire, &mut wire);
            } else {
                wire.send()?;
            }
        }
        read
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_gather(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_gather(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        cork::flush_overdue();
        let mut wire = self.wire.borrow_mut();
        wire.check()?;
        if !cork::is_hooked() {
            return self.poll_send(cx, &mut wire);
        }
        if wire.has_unsent() {
            cork::mark(&self.wire, &mut wire);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.borrow_mut();
        wire.check()?;
        wire.close()?;
        ready!(self.poll_send(cx, &mut wire))?;
        wire.poll_close_socket(cx)
    }
}

impl Drop for TlsStream {
    // What was flushed still leaves with the next park; what the socket does not take by then is given up.
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.abandoned = true;
        if let Some(drainer) = wire.drainer.take() {
            drainer.wake();
        }
    }
}
