//! Listens in on one HTTP/2 connection: how much arrives, and, by the heads of the frames that pass, how much the other end
//! may still send on it and how much of what came nobody has read yet. h2 tells neither.
//!
//! Knows not what follows from that: see [`crate::exchange::window`]. Looks at thirteen bytes of a frame at most.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::exchange::limits::CONNECTION_WINDOW;

/// What both ends begin with, whatever their settings say (RFC 9113 6.9.2).
const FIRST_WINDOW: u32 = 65_535;
/// `PRI * HTTP/2.0` and what belongs to it: the client's first bytes are no frame (RFC 9113 3.4).
const PREFACE: usize = 24;
/// A frame's head (RFC 9113 4.1).
const HEAD: usize = 9;
/// The same with all of WINDOW_UPDATE's payload.
const UPDATE: usize = HEAD + 4;
const DATA_KIND: u8 = 0x0;
const SETTINGS_KIND: u8 = 0x4;
const UPDATE_KIND: u8 = 0x8;
/// Of SETTINGS.
const ACK: u8 = 0x1;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// We connected.
    Client,
    /// We were connected to.
    Server,
}

/// What passed.
#[derive(Debug)]
pub struct Meter {
    arrived: Cell<u64>,
    open: Cell<u32>,
    promised: Cell<u32>,
    target: Cell<u32>,
    // What h2 aimed at when it told last; what it tells now may have been reckoned with it.
    last_target: Cell<u32>,
    acknowledged: Cell<u32>,
}

/// A connection that is listened in on.
#[derive(Debug)]
pub struct Metered<I> {
    io: I,
    meter: Rc<Meter>,
    inbound: Frames,
    outbound: Frames,
}

// Follows the heads of frames through bytes that come in pieces.
#[derive(Debug, Default)]
struct Frames {
    // Of this frame, or of the preface; passed over.
    rest: usize,
    head: [u8; UPDATE],
    filled: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Data { length: u32 },
    // Of the connection's window.
    Update { by: u32 },
    // Of settings.
    Acknowledgement,
    Other,
}

impl Meter {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            arrived: Cell::new(0),
            open: Cell::new(FIRST_WINDOW),
            promised: Cell::new(FIRST_WINDOW),
            target: Cell::new(CONNECTION_WINDOW),
            last_target: Cell::new(0),
            acknowledged: Cell::new(0),
        })
    }

    /// Bytes of any kind that have arrived.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.get()
    }

    /// Bytes of bodies that the other end may still send.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// What could be held at once as far as the other end has been told: what is unread, and what may still come.
    #[must_use]
    pub fn promised(&self) -> u32 {
        self.promised.get()
    }

    /// Bytes that arrived and that nobody has read; at times somewhat more, as what is read is told late.
    #[must_use]
    pub fn unread(&self) -> u32 {
        self.promised().saturating_sub(self.open())
    }

    /// So many of our settings the other end has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u32 {
        self.acknowledged.get()
    }

    /// The window that h2 aims at from now on.
    pub fn aims_at(&self, target: u32) {
        self.target.set(target);
    }

    /// All that arrived has been read.
    pub fn is_read(&self) {
        self.promised.set(self.open());
    }

    fn came(&self, frame: Frame) {
        match frame {
            Frame::Data { length } => self.open.set(self.open().saturating_sub(length)),
            Frame::Acknowledgement => self.acknowledged.set(self.acknowledged().wrapping_add(1)),
            Frame::Update { .. } | Frame::Other => {}
        }
    }

    fn went(&self, frame: Frame) {
        if let Frame::Update { by } = frame {
            self.open.set(self.open().saturating_add(by));
            // h2 tells all that it has to tell, so that just now nothing is unread but what is missing.
            let target = self.target.get();
            let aimed_at = self.last_target.replace(target).max(target);
            self.promised.set(aimed_at.max(self.open()));
        }
    }
}

impl<I> Metered<I> {
    /// Listens in on a connection of which nothing has passed yet.
    pub fn new(io: I, end: End) -> (Self, Rc<Meter>) {
        let meter = Meter::new();
        let preface = || Frames { rest: PREFACE, ..Frames::default() };
        let (inbound, outbound) = match end {
            End::Client => (Frames::default(), preface()),
            End::Server => (preface(), Frames::default()),
        };
        (Self { io, meter: Rc::clone(&meter), inbound, outbound }, meter)
    }
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8], mut saw: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let missing = self.wanted() - self.filled;
            let (part, behind) = bytes.split_at(missing.min(bytes.len()));
            for (to, from) in self.head.iter_mut().skip(self.filled).zip(part) {
                *to = *from;
            }
            self.filled += part.len();
            bytes = behind;
            if self.filled == self.wanted() {
                self.rest = self.length() as usize - (self.filled - HEAD);
                self.filled = 0;
                saw(self.frame());
            }
        }
    }

    fn wanted(&self) -> usize {
        if self.filled >= HEAD && self.is_update() { UPDATE } else { HEAD }
    }

    fn length(&self) -> u32 {
        let [high, middle, low, ..] = self.head;
        u32::from_be_bytes([0, high, middle, low])
    }

    fn is_update(&self) -> bool {
        let [_, _, _, kind, _, stream @ .., _, _, _, _] = self.head;
        kind == UPDATE_KIND && stream == [0; 4] && self.length() as usize == UPDATE - HEAD
    }

    fn frame(&self) -> Frame {
        let [.., a, b, c, d] = self.head;
        match self.head {
            [_, _, _, DATA_KIND, ..] => Frame::Data { length: self.length() },
            [_, _, _, SETTINGS_KIND, flags, ..] if flags & ACK != 0 => Frame::Acknowledgement,
            // The highest bit is reserved.
            _ if self.is_update() => Frame::Update { by: u32::from_be_bytes([a & 0x7f, b, c, d]) },
            _ => Frame::Other,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, meter, inbound, .. } = &mut *self;
        let before = buffer.filled().len();
        let read = ready!(Pin::new(io).poll_read(cx, buffer));
        let came = buffer.filled().get(before..).unwrap_or_default();
        meter.arrived.set(meter.arrived() + came.len() as u64);
        inbound.follow(came, |frame| meter.came(frame));
        Poll::Ready(read)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, meter, outbound, .. } = &mut *self;
        let written = ready!(Pin::new(io).poll_write(cx, bytes))?;
        outbound.follow(bytes.get(..written).unwrap_or_default(), |frame| meter.went(frame));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, meter, outbound, .. } = &mut *self;
        let written = ready!(Pin::new(io).poll_write_vectored(cx, pieces))?;
        let mut left = written;
        for piece in pieces {
            let part = piece.get(..left.min(piece.len())).unwrap_or_default();
            outbound.follow(part, |frame| meter.went(frame));
            left -= part.len();
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(written))
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

    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, stream]);
        bytes.extend(payload);
        bytes
    }

    fn seen(frames: &mut Frames, pieces: &[&[u8]]) -> Vec<Frame> {
        let mut seen = Vec::new();
        for piece in pieces {
            frames.follow(piece, |frame| seen.push(frame));
        }
        seen.retain(|frame| *frame != Frame::Other);
        seen
    }

    proptest! {
        #[test]
        fn frames_are_told_alike_however_their_bytes_are_cut(cuts in proptest::collection::vec(1_usize..40, 1..60)) {
            let update = 0x8000_0007_u32.to_be_bytes();
            let all = [
                frame(DATA_KIND, 1, &[UPDATE_KIND; 100]),
                frame(UPDATE_KIND, 0, &update),
                // A stream's own window, a malformed one, and what looks like neither.
                frame(UPDATE_KIND, 3, &update),
                frame(UPDATE_KIND, 0, &[0; 5]),
                frame(0x1, 5, &[0; 31]),
                frame(DATA_KIND, 5, &[]),
            ];
            let all = all.concat();
            let (mut pieces, mut rest) = (Vec::new(), &all[..]);
            for cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }

            let told = seen(&mut Frames::default(), &pieces);

            let expected =
                [Frame::Data { length: 100 }, Frame::Update { by: 7 }, Frame::Data { length: 0 }];
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn what_is_unread_is_what_came_and_was_not_given_back() {
        let meter = Meter::new();
        meter.went(Frame::Update { by: CONNECTION_WINDOW - FIRST_WINDOW });
        assert_eq!((meter.open(), meter.unread()), (CONNECTION_WINDOW, 0));

        meter.came(Frame::Data { length: 600 << 10 });
        assert_eq!(meter.unread(), 600 << 10);

        // 500 KiB of it were read.
        meter.went(Frame::Update { by: 500 << 10 });
        assert_eq!(meter.unread(), 100 << 10);
        // The window grows by 100 KiB, which is told at once.
        meter.aims_at(CONNECTION_WINDOW + (100 << 10));
        meter.went(Frame::Update { by: 100 << 10 });
        assert_eq!((meter.open(), meter.unread()), (CONNECTION_WINDOW, 100 << 10));
        meter.is_read();
        assert_eq!(meter.unread(), 0);
    }
}
