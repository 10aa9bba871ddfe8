//! One TLS connection on one socket: plaintext gathered on its way out, ciphertext read in large pieces on its way in,
//! and the handshake. Knows when the socket would block, not when bytes should leave (see `cork`) and not how it is
//! read and written as a stream (see `stream`).

use std::{
    cell::RefCell,
    io::{self, BufRead as _, IoSlice, Write as _},
    iter, mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use rustls::{Connection, ContentType};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};

use super::fault::{TlsError, to_io};
use crate::budget::Loan;

/// Bytes gathered before the writer has to wait: four full TLS records.
pub(super) const CORK_LIMIT: usize = 64 * 1024;
/// RFC 8446 5.1: plaintext of one record. Full ones cost the least for each byte.
const RECORD: usize = 16 * 1024;
/// Of what is offered at once so many pieces are looked at: a frame's head and its payload, and some to spare.
const MOST_PIECES: usize = 8;
/// Bytes asked of the socket at once: four full TLS records for one system call.
const READ_BYTES: usize = 64 * 1024;
/// Emptied buffers kept for the next writer on this thread, so that an idle connection holds none.
const SPARE_BUFFERS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The state behind a stream.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    connection: Connection,
    // Plaintext, not yet encrypted.
    corked: Vec<u8>,
    // Bytes of plaintext whose ciphertext waits in `connection`.
    encrypted: usize,
    // Ciphertext, not yet decrypted because the reader had no room.
    undecrypted: BytesMut,
    // Both of them, and what `connection` holds encrypted.
    held: Loan,
    peer_spoke: bool,
    peer_closed: bool,
    closing: bool,
    failure: Option<(io::ErrorKind, String)>,
    /// Is it on the list of what leaves when the thread parks?
    pub(super) dirty: bool,
    /// Has a task taken over its sending, because the socket was full?
    pub(super) draining: bool,
    /// That task, to be told when nobody is interested any more.
    pub(super) drainer: Option<Waker>,
    /// Who waits for room.
    pub(super) writer: Option<Waker>,
    /// Its stream was dropped.
    pub(super) abandoned: bool,
}

/// Did all leave, or is the socket full?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    Blocked,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, mut connection: Connection) -> Self {
        // Bounded by the cork's limit, which counts what was encrypted, too.
        connection.set_buffer_limit(None);
        Self {
            socket,
            connection,
            corked: Vec::new(),
            encrypted: 0,
            undecrypted: BytesMut::new(),
            held: Loan::default(),
            peer_spoke: false,
            peer_closed: false,
            closing: false,
            failure: None,
            dirty: false,
            draining: false,
            drainer: None,
            writer: None,
            abandoned: false,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Takes what somebody else has read of the socket before.
    pub(super) fn begin_with(&mut self, first: &[u8]) -> Result<(), TlsError> {
        if first.is_empty() {
            return Ok(());
        }
        self.take_handshake_bytes(first).inspect_err(|_| self.say_goodbye())
    }

    /// Drives the handshake to its end. A peer whose first byte begins no TLS record speaks plaintext.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        loop {
            while self.send()? == Sent::Blocked {
                ready!(self.socket.poll_write_ready(cx))?;
            }
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = ready!(self.poll_handshake_bytes(cx)) {
                self.say_goodbye();
                return Poll::Ready(Err(error));
            }
        }
    }

    fn poll_handshake_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let input = buffer.filled();
            if input.is_empty() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            Poll::Ready(self.take_handshake_bytes(input))
        })
    }

    fn take_handshake_bytes(&mut self, mut input: &[u8]) -> Result<(), TlsError> {
        let never_spoke = !mem::replace(&mut self.peer_spoke, true);
        let begins = input.first().copied().unwrap_or_default().into();
        if never_spoke && ![ContentType::Handshake, ContentType::Alert].contains(&begins) {
            return Err(TlsError::Plaintext);
        }
        while !input.is_empty() && self.connection.is_handshaking() {
            self.connection.read_tls(&mut input)?;
            self.connection.process_new_packets()?;
        }
        // What follows the handshake is decrypted when somebody reads.
        self.undecrypted.extend_from_slice(input);
        Ok(())
    }

    // The alert says why. Unread bytes would turn our close into a reset, which may overtake the alert.
    fn say_goodbye(&mut self) {
        let _ = self.send();
        SCRATCH.with_borrow_mut(|scratch| while matches!(self.socket.try_read(scratch), Ok(1..)) {});
    }

    /// Reads plaintext. Nothing read means that the peer closed in order.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let mut held = mem::take(&mut self.undecrypted);
        let mut rest = &held[..];
        let decrypted = self.decrypt(&mut rest, out);
        let used = held.len() - rest.len();
        held.advance(used);
        self.undecrypted = held;
        self.count();
        decrypted?;
        while out.filled().len() == before && out.remaining() > 0 && !self.peer_closed {
            ready!(self.poll_receive_more(cx, out))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive_more(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            // Not `try_read`: a short `poll_read` also learns that the socket is empty, which saves a call.
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let mut input = buffer.filled();
            if input.is_empty() {
                let text = "the peer closed the connection without saying so (close_notify)";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
            self.decrypt(&mut input, out)?;
            self.undecrypted = BytesMut::from(input);
            self.count();
            Poll::Ready(Ok(()))
        })
    }

    // rustls takes about 4 KiB at a time and holds little plaintext, so it is fed and emptied in turn.
    fn decrypt(&mut self, input: &mut &[u8], out: &mut ReadBuf<'_>) -> io::Result<()> {
        self.take_plaintext(out)?;
        while !input.is_empty() && out.remaining() > 0 && !self.peer_closed {
            self.connection.read_tls(input)?;
            if let Err(error) = self.connection.process_new_packets() {
                let _ = self.send();
                return Err(to_io(error));
            }
            self.take_plaintext(out)?;
        }
        Ok(())
    }

    fn take_plaintext(&mut self, out: &mut ReadBuf<'_>) -> io::Result<()> {
        while out.remaining() > 0 {
            let mut reader = self.connection.reader();
            let piece = match reader.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if piece.is_empty() {
                self.peer_closed = true;
                return Ok(());
            }
            let (piece, _) = piece.split_at(piece.len().min(out.remaining()));
            out.put_slice(piece);
            let taken = piece.len();
            reader.consume(taken);
        }
        Ok(())
    }

    /// Is there anything to send?
    pub(super) fn has_unsent(&self) -> bool {
        !self.corked.is_empty() || self.connection.wants_write()
    }

    /// Has rustls something to say that nobody wrote?
    pub(super) fn wants_answer(&self) -> bool {
        self.connection.wants_write()
    }

    fn count(&mut self) {
        self.held.resize(self.corked.len() + self.encrypted + self.undecrypted.len());
    }

    /// Is the cork full?
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }

    fn room(&self) -> usize {
        CORK_LIMIT.saturating_sub(self.corked.len() + self.encrypted)
    }

    /// Gathers plaintext, as much as there is room for. Whole records are encrypted from where the bytes lie; only what
    /// fills none is copied, to wait for more.
    pub(super) fn gather(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let pieces = pieces.get(..MOST_PIECES).unwrap_or(pieces);
        let before = self.corked.len();
        let offered: usize = pieces.iter().map(|piece| piece.len()).sum();
        let all = before + offered.min(self.room());
        let whole = all - all % RECORD;
        if whole > before {
            self.encrypt_with(pieces, whole - before)?;
            self.count();
            return Ok(whole - before);
        }
        if self.corked.capacity() == 0 {
            self.corked = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        for piece in first(pieces, all - before) {
            self.corked.extend_from_slice(piece);
        }
        self.count();
        Ok(all - before)
    }

    // What is corked and the first `taken` bytes of `pieces`, as one text: full records but for the last.
    fn encrypt_with(&mut self, pieces: &[IoSlice<'_>], taken: usize) -> io::Result<()> {
        let mut corked = mem::take(&mut self.corked);
        let mut text = [IoSlice::new(&[]); MOST_PIECES + 1];
        let all = iter::once(corked.as_slice()).chain(first(pieces, taken));
        for (to, piece) in text.iter_mut().zip(all) {
            *to = IoSlice::new(piece);
        }
        let written = self.connection.writer().write_vectored(&text)?;
        self.encrypted += written;
        let expected = corked.len() + taken;
        corked.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(corked);
            }
        });
        // It has no bound of its own, and refuses none but what follows a closing word.
        if written == expected { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Encrypts and sends what was gathered, as far as the socket takes it.
    pub(super) fn send(&mut self) -> io::Result<Sent> {
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Socket(&self.socket)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Blocked),
                    Err(error) => return Err(error),
                }
            }
            self.encrypted = 0;
            if self.corked.is_empty() {
                self.count();
                return Ok(Sent::All);
            }
            self.encrypt()?;
        }
    }

    fn encrypt(&mut self) -> io::Result<()> {
        if self.corked.is_empty() {
            return Ok(());
        }
        self.encrypt_with(&[], 0)
    }

    /// Sends all, waiting where the socket is full; gives up once nobody is interested any more.
    pub(super) fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.abandoned {
            if self.send()? == Sent::All {
                break;
            }
            ready!(self.socket.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing follows. What was gathered before goes before it.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if !mem::replace(&mut self.closing, true) {
            self.encrypt()?;
            self.connection.send_close_notify();
        }
        Ok(())
    }

    /// Closes the socket's sending side.
    pub(super) fn poll_close_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Remembers that sending failed, for whoever writes next.
    pub(super) fn fail(&mut self, error: &io::Error) {
        self.failure = Some((error.kind(), error.to_string()));
        self.corked = Vec::new();
    }

    /// May more be written?
    pub(super) fn check_open(&self) -> io::Result<()> {
        self.check()?;
        if self.closing {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream was shut down"));
        }
        Ok(())
    }

    /// Did sending fail?
    pub(super) fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }
}

// The first `count` bytes of `pieces`.
fn first<'a>(pieces: &'a [IoSlice<'_>], mut count: usize) -> impl Iterator<Item = &'a [u8]> {
    pieces.iter().map(move |piece| {
        let (taken, _) = piece.split_at(piece.len().min(count));
        count -= taken.len();
        taken
    })
}

struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
