//! The receive windows of one HTTP/2 connection between sidecars: small at the start, and larger while that is what keeps
//! bytes back. A ping that is sent while bytes arrive tells how many of them arrive in one round trip; where that is most
//! of a window, the window is doubled, if the byte budget lends it. When the budget is tight all windows go back.
//!
//! **Whoever does not read holds up nobody else.** Bytes that wait for their readers use up the connection's window, which
//! all its streams share. So it grows by what waits, lent by the byte budget; what one stream can make wait is its own
//! window, and that gets smaller the more there is that waits: all streams that a connection may have can stand still
//! without filling it. Where the budget lends nothing, streams get the smallest window at once, which needs 1.6 MiB for all.
//!
//! Knows not which side of the connection it is; whoever drives it applies what is said here.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

use crate::{
    budget::{self, Loan},
    exchange::{
        limits::{CONNECTION_WINDOW, MAX_STREAM_WINDOW, MAX_STREAMS, STREAM_WINDOW},
        meter::Meter,
    },
    net::reading::{LEAST_STREAM_WINDOW, nudge},
};

/// A connection's window is so many of a stream's.
const STREAMS: u32 = CONNECTION_WINDOW / STREAM_WINDOW;
/// What all streams of a connection can hold when they have the smallest window.
const LEAST: u32 = MAX_STREAMS * LEAST_STREAM_WINDOW;
/// The connection's window at most (design.md section 6).
const MAX_CONNECTION_WINDOW: u32 = STREAMS * MAX_STREAM_WINDOW;
/// Where the budget lends nothing.
const NO_ROOM: u32 = 0;
/// One connection gets no more than this part of the byte budget for what waits.
const OF_BUDGET: usize = 4;
/// One stream that does not read takes at most this part of the room that is left.
const OF_ROOM: u32 = 32;
/// With less than this part of its window open a connection is about to stand still.
const OF_WINDOW: u32 = 4;
/// A peer that says nothing for so long is asked whether it is there.
const ASK: Duration = Duration::from_secs(15);
/// Bytes between two questions that are but answers to the last one.
const QUIET: u64 = 1024;
/// A peer that does not answer a ping is gone: an asymmetric partition ends within 30 s.
const ANSWER: Duration = Duration::from_secs(10);

/// Both windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Each stream's.
    pub stream: u32,
    /// The connection's.
    pub connection: u32,
}

/// The windows of one connection.
pub struct Windows {
    pings: PingPong,
    meter: Rc<Meter>,
    size: Size,
    // What the windows are above their start; after they shrank, what peers may still have sent before.
    loan: Loan,
    // Nothing was in flight when so much was promised: nothing is held of it.
    rested: Option<u32>,
    asked: Option<Asked>,
    // Said once: whoever cannot apply it waits for something to arrive, too.
    said: Option<(u64, Size)>,
    // Readers had time to read since the window was first seen so small.
    looked: bool,
    // Streams' windows shrink with this acknowledgement; h2 may apply it somewhat later.
    shrinks_with: Option<u32>,
    shrank: bool,
    // Before it no ping is needed, and after it one without an answer has failed.
    timer: Pin<Box<Sleep>>,
    seen: u64,
}

/// An HTTP/2 connection of either side.
pub trait Resizable {
    /// A new window for each stream; false while the last change is not yet acknowledged.
    fn resize_streams(&mut self, window: u32) -> bool;

    /// What the connection's own window shall be.
    fn resize(&mut self, window: u32);
}

struct Asked {
    at: u64,
}

impl Size {
    // The connection's window for such streams while all that comes is read.
    fn usual(stream: u32) -> u32 {
        stream.saturating_mul(STREAMS).max(CONNECTION_WINDOW)
    }

    // Above the start.
    fn lent(self) -> usize {
        self.connection.saturating_sub(CONNECTION_WINDOW) as usize
    }
}

impl Windows {
    /// The windows of a new connection, which `meter` listens in on.
    #[must_use]
    pub fn new(pings: PingPong, meter: Rc<Meter>) -> Self {
        Self {
            pings,
            meter,
            size: Size { stream: STREAM_WINDOW, connection: CONNECTION_WINDOW },
            loan: Loan::default(),
            rested: None,
            asked: None,
            said: None,
            looked: false,
            shrinks_with: None,
            shrank: false,
            timer: Box::pin(tokio::time::sleep(ASK)),
            seen: 0,
        }
    }

    /// The next size of the windows; also notices that the peer has gone. Nothing is lost when it is not awaited to its
    /// end. Must be polled whenever the connection is.
    ///
    /// # Errors
    /// When the peer does not answer, or the connection has ended.
    pub async fn next(&mut self) -> Result<Size, h2::Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Makes the windows of this size. Not while the last change is not yet acknowledged: it is asked for again.
    pub fn apply(&mut self, size: Size, connection: &mut impl Resizable) {
        if size.stream == self.size.stream || connection.resize_streams(size.stream) {
            connection.resize(size.connection);
            self.meter.aims_at(size.connection);
            if size.stream < self.size.stream {
                self.shrinks_with = Some(self.meter.acknowledged().wrapping_add(1));
            }
            self.size = size;
            self.account();
        }
    }

    /// Nothing is in flight on the connection, so that nothing can be held either.
    pub fn rest(&mut self) {
        self.meter.is_read();
        self.rested = Some(self.meter.promised());
        self.account();
    }

    fn account(&mut self) {
        let (unread, promised) = (self.meter.unread(), self.meter.promised());
        let held = if self.rested == Some(promised) { unread } else { promised };
        let held = Size { connection: held.max(self.size.connection), ..self.size };
        self.loan.resize(held.lent());
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Size, h2::Error>> {
        self.account();
        if self.shrinks_with.take_if(|at| *at == self.meter.acknowledged()).is_some() {
            self.shrank = true;
            nudge();
        }
        if let Some(size) = self.poll_unread(cx) {
            return Poll::Ready(Ok(size));
        }
        let (arrived, stream) = (self.meter.arrived(), self.size.stream);
        if let Some(Asked { at }) = self.asked {
            if self.pings.poll_pong(cx)?.is_ready() {
                self.asked = None;
                self.wait(ASK);
                if let Some(larger) = grown(stream, arrived - at)
                    && stream >= STREAM_WINDOW
                    && self.meter.unread() < Size::usual(stream) / 2
                    && let Some(more) = budget::lend(larger.lent().saturating_sub(self.loan.bytes()))
                {
                    // Counted from now on as part of the loan that `apply` makes.
                    drop(more);
                    return Poll::Ready(Ok(larger));
                }
            } else {
                ready!(self.timer.as_mut().poll(cx));
                return Poll::Ready(Err(Reason::SETTINGS_TIMEOUT.into()));
            }
        }
        // A window's worth is worth a question.
        let fast = stream < MAX_STREAM_WINDOW && arrived - self.seen >= u64::from(stream);
        let silent = !fast && self.timer.as_mut().poll(cx).is_ready();
        if !fast && !silent {
            return Poll::Pending;
        }
        let rested = silent && arrived - self.seen < QUIET && self.loan.bytes() > 0;
        self.seen = arrived;
        if silent && mem::take(&mut self.shrank) {
            nudge();
        }
        // One that is under way answers as well.
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            self.asked = Some(Asked { at: arrived });
            self.wait(ANSWER);
            // Now the answer's waker is known, and the timer's.
            let _ = self.timer.as_mut().poll(cx);
            if self.pings.poll_pong(cx)?.is_ready() {
                self.asked = None;
                self.wait(ASK);
            }
        }
        let start = small(self.size, self.meter.unread());
        if rested && start != self.size { Poll::Ready(Ok(start)) } else { Poll::Pending }
    }

    // What follows from what nobody has read yet.
    fn poll_unread(&mut self, cx: &Context<'_>) -> Option<Size> {
        let (open, unread) = (self.meter.open(), self.meter.unread());
        // Its first window has not been told yet.
        if self.meter.promised() < CONNECTION_WINDOW {
            return None;
        }
        let said = (self.meter.arrived(), self.size);
        let mut next = next_size(self.size, open, unread, room());
        let more = next.connection.saturating_sub(self.size.connection);
        if more > 0 && budget::lend(more as usize).is_none() {
            next = next_size(self.size, open, unread, NO_ROOM);
        }
        if next == self.size || self.said == Some(said) {
            self.looked = false;
            return None;
        }
        // What has just come is read as soon as its readers run.
        let grows = next.connection > self.size.connection || next.stream < self.size.stream;
        if grows && !mem::replace(&mut self.looked, true) {
            cx.waker().wake_by_ref();
            return None;
        }
        self.looked = false;
        self.said = Some(said);
        Some(next)
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

// What a connection's window may be.
fn room() -> u32 {
    let part = u32::try_from(budget::limit() / OF_BUDGET).unwrap_or(u32::MAX);
    if budget::is_tight() { NO_ROOM } else { part.clamp(2 * CONNECTION_WINDOW, MAX_CONNECTION_WINDOW) }
}

// What the windows should be, where `arrived` bytes came in one round trip.
fn grown(stream: u32, arrived: u64) -> Option<Size> {
    let limits = arrived >= u64::from(stream) * 2 / 3;
    (limits && stream < MAX_STREAM_WINDOW).then(|| {
        let stream = (stream * 2).min(MAX_STREAM_WINDOW);
        Size { stream, connection: Size::usual(stream) }
    })
}

// The windows at their start, and what is unread above it.
fn small(now: Size, unread: u32) -> Size {
    let connection = CONNECTION_WINDOW.saturating_add(unread).min(now.connection);
    Size { stream: now.stream.min(STREAM_WINDOW), connection }
}

// What the windows should be, where the peer may send `open` bytes more, `unread` wait for their readers, and the
// connection's window may be `most`.
fn next_size(now: Size, open: u32, unread: u32, most: u32) -> Size {
    let is_tight = most == NO_ROOM;
    if is_tight && now.stream > STREAM_WINDOW {
        return small(now, unread);
    }
    let free = if is_tight { STREAM_WINDOW } else { Size::usual(now.stream) };
    if open < free / OF_WINDOW {
        let left = most.saturating_sub(unread).saturating_sub(free);
        return opened(Size { stream: now.stream.min(part_of(left)), ..now }, open, unread, most);
    }
    // It may soon be more again.
    let is_little = !is_tight && unread < CONNECTION_WINDOW / 2;
    let left = most.saturating_sub(unread).saturating_sub(CONNECTION_WINDOW);
    let fits = if is_little { STREAM_WINDOW } else { part_of(left).min(STREAM_WINDOW) };
    let stream = now.stream.max(fits);
    let needs = Size::usual(stream).saturating_add(unread);
    let slack = CONNECTION_WINDOW / 2;
    Size {
        stream,
        connection: if now.connection > needs.saturating_add(slack) { needs } else { now.connection },
    }
}

// What one stream may take of what is left.
fn part_of(left: u32) -> u32 {
    (left / OF_ROOM).checked_ilog2().map_or(0, |power| 1 << power).max(LEAST_STREAM_WINDOW)
}

// With so much of its connection's window open as such streams need.
fn opened(now: Size, open: u32, unread: u32, most: u32) -> Size {
    let free = if most == NO_ROOM { STREAM_WINDOW } else { Size::usual(now.stream) };
    let needs = free.saturating_add(unread);
    // Where that is there already, and the peer does not hear of it, more is unread than could be seen.
    let needs =
        if needs > now.connection { needs } else { now.connection.saturating_add(free - open.min(free)) };
    // Streams of the smallest window always have room: together they cannot hold more than this.
    let least = most.max(unread).saturating_add(LEAST).saturating_add(free);
    let most = if now.stream == LEAST_STREAM_WINDOW { least } else { most };
    Size { connection: needs.min(most).max(now.connection), ..now }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Resizable for h2::client::Connection<I, Bytes> {
    fn resize_streams(&mut self, window: u32) -> bool {
        self.set_initial_window_size(window).is_ok()
    }

    fn resize(&mut self, window: u32) {
        self.set_target_window_size(window);
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Resizable for h2::server::Connection<I, Bytes> {
    fn resize_streams(&mut self, window: u32) -> bool {
        self.set_initial_window_size(window).is_ok()
    }

    fn resize(&mut self, window: u32) {
        self.set_target_window_size(window);
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
