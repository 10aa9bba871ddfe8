//! The receive windows of one HTTP/2 connection between sidecars: small at the start, and larger while that is what keeps
//! bytes back. A ping that is sent while bytes arrive tells how many of them arrive in one round trip; where that is most
//! of a window, the window is doubled, if the byte budget lends it. When the budget is tight all windows go back.
//!
//! Knows not which side of the connection it is; whoever drives it applies what is said here.

use std::{
    cell::Cell,
    cmp::Ordering,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong, Reason};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{
    budget::{self, Loan},
    exchange::limits::{CONNECTION_WINDOW, MAX_STREAM_WINDOW, STREAM_WINDOW},
};

/// A connection's window is so many of a stream's: one slow stream holds up few others.
const STREAMS: u32 = CONNECTION_WINDOW / STREAM_WINDOW;
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
    arrived: Rc<Cell<u64>>,
    stream: u32,
    // What the windows are above their start; after they shrank, what peers may still have sent before.
    loan: Loan,
    // All of that has come, and gone on, once so many bytes have arrived.
    owed_until: Option<u64>,
    asked: Option<Asked>,
    shrank_at: Option<u64>,
    // Before it no ping is needed, and after it one without an answer has failed.
    timer: Pin<Box<Sleep>>,
    seen: u64,
}

struct Asked {
    at: u64,
}

/// Counts what arrives.
#[derive(Debug)]
pub struct Metered<I> {
    io: I,
    arrived: Rc<Cell<u64>>,
}

impl Size {
    fn of(stream: u32) -> Self {
        Self { stream, connection: stream.saturating_mul(STREAMS) }
    }

    // Above the start.
    fn lent(self) -> usize {
        self.connection.saturating_sub(CONNECTION_WINDOW) as usize
    }
}

impl<I> Metered<I> {
    /// Counts what is read of `io`.
    pub fn new(io: I) -> (Self, Rc<Cell<u64>>) {
        let arrived = Rc::default();
        (Self { io, arrived: Rc::clone(&arrived) }, arrived)
    }
}

impl Windows {
    /// The windows of a new connection; `arrived` is its meter.
    #[must_use]
    pub fn new(pings: PingPong, arrived: Rc<Cell<u64>>) -> Self {
        Self {
            pings,
            arrived,
            stream: STREAM_WINDOW,
            loan: Loan::default(),
            owed_until: None,
            asked: None,
            shrank_at: None,
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

    /// The windows are of this size now.
    pub fn set(&mut self, size: Size) {
        match size.stream.cmp(&self.stream) {
            Ordering::Greater if self.owed_until.is_none() => self.loan.resize(size.lent()),
            Ordering::Greater => self.loan.resize(size.lent().max(self.loan.bytes())),
            Ordering::Equal => {}
            Ordering::Less => {
                let owed = u64::from(Size::of(self.stream).connection);
                self.owed_until = Some(self.arrived.get() + owed);
            }
        }
        self.stream = size.stream;
    }

    /// Nothing is in flight on the connection, so that nothing can be held either.
    pub fn rest(&mut self) {
        self.owed_until = None;
        self.loan.resize(Size::of(self.stream).lent());
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Size, h2::Error>> {
        let arrived = self.arrived.get();
        if self.owed_until.is_some_and(|until| arrived >= until) {
            self.rest();
        }
        // Said once for all that arrived: whoever cannot apply it waits for something to arrive, too.
        if self.stream > STREAM_WINDOW && budget::is_tight() && self.shrank_at != Some(arrived) {
            self.shrank_at = Some(arrived);
            return Poll::Ready(Ok(Size::of(STREAM_WINDOW)));
        }
        if let Some(Asked { at }) = self.asked {
            if self.pings.poll_pong(cx)?.is_ready() {
                self.asked = None;
                self.wait(ASK);
                if let Some(larger) = grown(self.stream, arrived - at)
                    && let Some(more) = budget::lend(larger.lent().saturating_sub(self.loan.bytes()))
                {
                    // Counted from now on as part of the loan that `set` makes.
                    drop(more);
                    return Poll::Ready(Ok(larger));
                }
            } else {
                ready!(self.timer.as_mut().poll(cx));
                return Poll::Ready(Err(Reason::SETTINGS_TIMEOUT.into()));
            }
        }
        // A window's worth is worth a question.
        let fast = self.stream < MAX_STREAM_WINDOW && arrived - self.seen >= u64::from(self.stream);
        let silent = !fast && self.timer.as_mut().poll(cx).is_ready();
        if !fast && !silent {
            return Poll::Pending;
        }
        let rested = silent && arrived - self.seen < QUIET && self.loan.bytes() > 0;
        self.seen = arrived;
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
        if rested { Poll::Ready(Ok(Size::of(STREAM_WINDOW))) } else { Poll::Pending }
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

// What the windows should be, where `arrived` bytes came in one round trip.
fn grown(stream: u32, arrived: u64) -> Option<Size> {
    let limits = arrived >= u64::from(stream) * 2 / 3;
    (limits && stream < MAX_STREAM_WINDOW).then(|| Size::of((stream * 2).min(MAX_STREAM_WINDOW)))
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.arrived.set(self.arrived.get() + (buffer.filled().len() - before) as u64);
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
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
    use std::collections::VecDeque;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const FAR: Duration = Duration::from_millis(20);

    /// A link on which each byte travels for `FAR`, and as many at once as there are.
    fn link() -> (DuplexStream, DuplexStream) {
        let ((near, a), (far, b)) = (duplex(64 << 20), duplex(64 << 20));
        let ((a_out, a_in), (b_out, b_in)) = (tokio::io::split(a), tokio::io::split(b));
        tokio::task::spawn_local(carry(a_out, b_in));
        tokio::task::spawn_local(carry(b_out, a_in));
        (near, far)
    }

    async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let (mut travels, mut ends) = (VecDeque::new(), false);
        while !ends || !travels.is_empty() {
            let mut read = vec![0; 1 << 20];
            let due = travels.front().map(|(due, _)| *due);
            tokio::select! {
                got = from.read(&mut read), if !ends => match got {
                    Ok(0) | Err(_) => ends = true,
                    Ok(count) => {
                        read.truncate(count);
                        travels.push_back((Instant::now() + FAR, read));
                    }
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let Some((_, bytes)) = travels.pop_front() else { continue };
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Serves a client that sends `megabytes` on one stream; the sizes that the windows took.
    async fn serve(megabytes: usize, mut told: impl FnMut(Size)) {
        let (near, far) = link();
        let client = async {
            let (mut send, connection) = h2::client::handshake(near).await.unwrap();
            tokio::task::spawn_local(connection);
            let (answer, mut stream) = send.send_request(http::Request::new(()), false).unwrap();
            for _ in 0..megabytes {
                crate::net::relay::send_all(&mut stream, vec![0; 1 << 20].into()).await.unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
            answer.await.unwrap();
        };
        let server = async {
            let (io, arrived) = Metered::new(far);
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
            let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
            let mut windows = Windows::new(connection.ping_pong().unwrap(), arrived);
            loop {
                tokio::select! {
                    size = windows.next() => {
                        let Ok(size) = size else { return };
                        if connection.set_initial_window_size(size.stream).is_ok() {
                            connection.set_target_window_size(size.connection);
                            windows.set(size);
                            told(size);
                        }
                    }
                    next = connection.accept() => {
                        let Some(Ok((request, mut respond))) = next else { return };
                        tokio::task::spawn_local(async move {
                            let mut body = request.into_body();
                            while let Some(Ok(bytes)) = body.data().await {
                                body.flow_control().release_capacity(bytes.len()).unwrap();
                            }
                            respond.send_response(http::Response::new(()), true).unwrap();
                        });
                    }
                }
            }
        };
        tokio::select! {
            () = server => {}
            () = client => {}
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build_local(Default::default()).unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn windows_grow_to_what_travels_in_a_round_trip_and_give_their_loan_back() {
        run(async {
            let mut sizes = Vec::new();

            serve(64, |size| sizes.push(size)).await;

            let streams: Vec<u32> = sizes.iter().map(|size| size.stream >> 10).collect();
            assert_eq!(streams, [512, 1024, 2048, 4096]);
            assert_eq!(sizes.last().unwrap().connection, 16 << 20);
            assert_eq!(budget::held(), 0, "the connection has ended");
        });
    }

    #[test]
    fn windows_grow_no_further_than_the_budget_lends() {
        run(async {
            // Of this 85 % are lent: room for a connection's window of 4 MiB above the first.
            budget::fix(4 << 20);
            let (mut sizes, mut most) = (Vec::new(), 0);

            serve(32, |size| {
                sizes.push(size.stream >> 10);
                most = most.max(budget::held());
            })
            .await;

            assert_eq!(sizes, [512, 1024]);
            assert_eq!(most, 3 << 20);
        });
    }

    #[test]
    fn windows_shrink_to_their_start_when_the_budget_is_tight() {
        run(async {
            budget::fix(64 << 20);
            let (mut sizes, mut crowd) = (Vec::new(), None);

            serve(64, |size| {
                sizes.push(size.stream >> 10);
                // Others need it now.
                if size.stream == 2 << 20 {
                    crowd = Some(budget::hold(60 << 20));
                }
            })
            .await;

            assert_eq!(sizes.get(..4), Some(&[512, 1024, 2048, 256][..]), "{sizes:?}");
            assert!(crowd.is_some());
            assert!(!sizes.contains(&4096), "{sizes:?}");
        });
    }

    #[test]
    fn a_window_that_is_not_what_limits_stays_as_it_is() {
        assert_eq!(grown(STREAM_WINDOW, 100 << 10), None);
        assert_eq!(grown(STREAM_WINDOW, 200 << 10), Some(Size::of(2 * STREAM_WINDOW)));
        assert_eq!(grown(MAX_STREAM_WINDOW, u64::MAX), None);
    }
}
