//! Watches the bytes of an HTTP/1 connection beside the server that parses them, for two things that server hides:
//! a request with both Content-Length and Transfer-Encoding (it drops one silently), and a request head that arrives
//! too slowly (its own timer would also end a connection that rests between requests).
//!
//! It follows the framing only: heads by `httparse`, bodies by length or chunks. Where it loses the thread it says so
//! and the request is refused: doubt is denied.

use std::{
    cell::Cell,
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{config::Limits, exchange::limits::MAX_HEAD, tls};

// One more than the server permits, so that the server's own answer to too many comes first.
const MAX_HEADERS: usize = 128;
// A chunk's size line, extensions included.
const MAX_CHUNK_LINE: usize = 256;

/// What the framing gave reason to doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Clear,
    /// Two lengths, or a framing that cannot be followed.
    Doubtful,
}

/// Reads the verdict on the requests so far, and knows whether one is being answered.
#[derive(Debug, Clone)]
pub struct Watch {
    verdict: Rc<Cell<Verdict>>,
    late: Rc<Cell<bool>>,
    answering: Rc<()>,
}

/// Lives as long as a request is being answered: the connection does not rest.
#[derive(Debug, Clone)]
pub struct Answering(#[expect(dead_code, reason = "its count is what tells")] Rc<()>);

/// A reader that watches.
#[derive(Debug)]
pub struct HeadWatch<T> {
    io: T,
    follower: Follower,
    watch: Watch,
    limits: Limits,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    in_head: bool,
    heads: u64,
}

#[derive(Debug)]
struct Follower {
    state: State,
    // The part of a head or chunk line that has arrived.
    pending: BytesMut,
    // Those that were whole.
    heads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body { left: u64 },
    ChunkSize,
    Chunk { left: u64 },
    Trailers,
    Lost,
}

struct Line<'a> {
    line: Vec<u8>,
    rest: &'a [u8],
}

// Where the framing lost the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    // Of a request that is not served yet: it is refused.
    Head,
    // Of one that is being served: its body never comes to an end.
    Body,
}

impl Watch {
    /// What has been seen so far; a doubt stays, since nothing after it can be told apart.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict.get()
    }

    /// Did the connection end because a request's head did not arrive in time?
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late.get()
    }

    /// A request is being answered until this is dropped.
    #[must_use]
    pub fn answering(&self) -> Answering {
        Answering(Rc::clone(&self.answering))
    }
}

impl<T> HeadWatch<T> {
    /// What is no HTTP any more is not watched.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Watches what is read from `io`.
    pub fn new(io: T, limits: Limits) -> (Self, Watch) {
        let watch = Watch {
            verdict: Rc::new(Cell::new(Verdict::Clear)),
            late: Rc::default(),
            answering: Rc::new(()),
        };
        let follower = Follower { state: State::Head, pending: BytesMut::new(), heads: 0 };
        let deadline = Instant::now() + limits.head;
        let timer = Box::pin(tokio::time::sleep_until(deadline));
        (Self { io, follower, watch: watch.clone(), limits, deadline, timer, in_head: true, heads: 0 }, watch)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HeadWatch<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        tls::flush_overdue();
        let this = &mut *self;
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) else {
            // Bodies have no time limit of their own: a slow upload is the application's business.
            if this.follower.state != State::Head {
                return Poll::Pending;
            }
            ready!(this.poll_deadline(cx));
            // Both watches hold one; a third is a request that is being answered.
            if Rc::strong_count(&this.watch.answering) > 2 && !this.in_head {
                this.wait_until(Instant::now() + this.limits.idle);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.watch.late.set(this.in_head);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        read?;
        let arrived = buf.filled().get(before..).unwrap_or_default();
        match this.follower.follow(arrived) {
            Ok(()) => {}
            Err(Doubt::Head) => this.watch.verdict.set(Verdict::Doubtful),
            Err(Doubt::Body) => {
                this.watch.verdict.set(Verdict::Doubtful);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        this.set_deadline();
        Poll::Ready(Ok(()))
    }
}

impl<T> HeadWatch<T> {
    fn set_deadline(&mut self) {
        let in_head = self.follower.state == State::Head && !self.follower.pending.is_empty();
        // One that begins in the bytes that end another has a time of its own.
        let begins = !self.in_head || self.follower.heads != self.heads;
        self.heads = self.follower.heads;
        if in_head && begins {
            self.wait_until(Instant::now() + self.limits.head);
        } else if !in_head && self.follower.state == State::Head {
            self.wait_until(Instant::now() + self.limits.idle);
        }
        self.in_head = in_head;
    }

    // The timer is set anew only to ring earlier, not with each request; when it rings too early it is set then.
    fn wait_until(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }
}

impl Follower {
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Doubt> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Lost => return Err(Doubt::Head),
                State::Body { left } => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::Head } else { State::Body { left } };
                    rest
                }
                State::Chunk { left } => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::ChunkSize } else { State::Chunk { left } };
                    rest
                }
                State::ChunkSize => self.chunk_size(bytes)?,
                State::Trailers => self.trailers(bytes)?,
                State::Head => self.head(bytes)?,
            };
        }
        Ok(())
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Doubt> {
        let had = self.pending.len();
        // Usually a head comes whole, and then nothing of it is kept.
        if had > 0 {
            self.pending.extend_from_slice(bytes);
        }
        let head = if had > 0 { &self.pending[..] } else { bytes };
        // A head ends with a line: parsing it again for each byte would cost its square.
        let parsed = if bytes.contains(&b'\n') { parse(head) } else { Ok(None) };
        match parsed {
            Ok(Some((length, next))) if length <= MAX_HEAD => {
                self.pending.clear();
                self.state = next;
                self.heads += 1;
                // What of this head had arrived before is no part of `bytes`.
                Ok(bytes.get(length.saturating_sub(had)..).unwrap_or_default())
            }
            Ok(None) if head.len() <= MAX_HEAD => {
                if had == 0 {
                    self.pending.extend_from_slice(bytes);
                }
                Ok(&[])
            }
            _ => self.lose(Doubt::Head),
        }
    }

    fn chunk_size<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Doubt> {
        let Some(Line { line, rest }) = self.line(bytes)? else { return Ok(&[]) };
        self.state = match chunk_size(&line) {
            Some(0) => State::Trailers,
            // The chunk's own CRLF belongs to it.
            Some(size) => State::Chunk { left: size.saturating_add(2) },
            None => return self.lose(Doubt::Body),
        };
        Ok(rest)
    }

    fn trailers<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Doubt> {
        let Some(Line { line, rest }) = self.line(bytes)? else { return Ok(&[]) };
        if line.is_empty() {
            self.state = State::Head;
        }
        Ok(rest)
    }

    // A line without its end, and what follows it; `None` while it is not whole.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Line<'a>>, Doubt> {
        let limit = if self.state == State::Trailers { MAX_HEAD } else { MAX_CHUNK_LINE };
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.pending.extend_from_slice(bytes);
            return if self.pending.len() > limit { self.lose(Doubt::Body) } else { Ok(None) };
        };
        let (head, rest) = bytes.split_at(end);
        self.pending.extend_from_slice(head);
        // The same limit wherever the bytes were cut.
        if self.pending.len() > limit {
            return self.lose(Doubt::Body);
        }
        let line = self.pending.split();
        let Some(line) = line.strip_suffix(b"\r") else { return self.lose(Doubt::Body) };
        Ok(Some(Line { line: line.to_vec(), rest: rest.get(1..).unwrap_or_default() }))
    }

    fn lose<Never>(&mut self, doubt: Doubt) -> Result<Never, Doubt> {
        self.state = State::Lost;
        self.pending = BytesMut::new();
        Err(doubt)
    }
}

// The length of a whole head, and what follows it; `None` while it is not whole.
fn parse(head: &[u8]) -> Result<Option<(usize, State)>, Doubt> {
    // Not even cleared for each request: the parser tells how many it filled.
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut headers) {
        Ok(httparse::Status::Complete(length)) => {
            let is_plain = ends_lines_with_crlf(head.get(..length).unwrap_or_default());
            let next = framing(request.headers).filter(|_| is_plain).ok_or(Doubt::Head)?;
            Ok(Some((length, next)))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Doubt::Head),
    }
}

// `None` where two parsers could cut at two places.
fn framing(headers: &[httparse::Header<'_>]) -> Option<State> {
    let named = |name: &'static str| {
        headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    // Some applications see `_` and `-` as one (CGI), and would find a length here that nobody else has seen.
    if named("content_length").chain(named("transfer_encoding")).next().is_some() {
        return None;
    }
    let mut encodings = named("transfer-encoding");
    let mut lengths = named("content-length");
    match (encodings.next(), lengths.next()) {
        (Some(_), Some(_)) => None,
        // Only "chunked" alone: any list, twin or spelling of it is where parsers differ.
        (Some(encoding), None) => {
            let alone = encodings.next().is_none() && encoding.eq_ignore_ascii_case(b"chunked");
            alone.then_some(State::ChunkSize)
        }
        (None, Some(length)) => {
            let plain = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let left = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            match left.filter(|_| plain && lengths.all(|other| other == length))? {
                0 => Some(State::Head),
                left => Some(State::Body { left }),
            }
        }
        (None, None) => Some(State::Head),
    }
}

// RFC 9112 2.2 lets a parser take LF alone for a line's end; those that do not see other lines.
fn ends_lines_with_crlf(head: &[u8]) -> bool {
    head.split_inclusive(|byte| *byte == b'\n').all(|line| line.ends_with(b"\r\n") || !line.ends_with(b"\n"))
}

// Hexadecimal digits, blanks, perhaps an extension, which must not hold what some take for an end.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let (size, extension) = line.split_at(line.iter().position(|byte| *byte == b';').unwrap_or(line.len()));
    if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return None;
    }
    let digits = size.trim_ascii_end();
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (bytes.get(here..).unwrap_or_default(), left - here as u64)
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HeadWatch<T> {
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
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_that_begins_behind_another_has_its_own_time() {
        let limits = Limits { head: Duration::from_secs(3), ..Limits::default() };
        let (mut client, server) = tokio::io::duplex(64);
        let mut watched = HeadWatch::new(server, limits).0;
        client.write_all(b"GET").await.unwrap();
        for _ in 0..3 {
            client.write_all(b" / HTTP/1.1\r\n\r\nGET").await.unwrap();
            let _ = watched.read(&mut [0; 64]).await.unwrap();
            let waits = tokio::time::timeout(Duration::from_secs(2), watched.read(&mut [0; 64])).await;
            assert!(waits.is_err(), "{waits:?}");
        }
    }

    fn follow(cuts: &[&[u8]]) -> Result<State, Doubt> {
        let mut follower = Follower { state: State::Head, pending: BytesMut::new(), heads: 0 };
        for bytes in cuts {
            follower.follow(bytes)?;
        }
        Ok(follower.state)
    }

    #[test]
    fn two_lengths_are_seen_in_either_order_also_behind_a_body() {
        for bytes in [
            &b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent_Length: 3\r\n\r\n",
            b"POST / HTTP/1.1\nContent-Length: 3\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\n",
            b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiPOST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nx: y\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(follow(&[bytes]), Err(Doubt::Head), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_chunk_that_could_be_cut_in_two_ways_ends_its_body() {
        let long = format!("5;{}", "x".repeat(MAX_CHUNK_LINE));
        for chunk in [
            "+5",
            " 5",
            "5 5",
            "",
            ";x",
            "0x5",
            "5_0",
            "5;x\u{0}",
            "5;x\ry",
            "10000000000000000",
            "5;x\n5",
            "5\n",
            &long,
        ] {
            let bytes =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\nhello\r\n0\r\n\r\n");
            assert_eq!(follow(&[bytes.as_bytes()]), Err(Doubt::Body), "{chunk:?}");
        }
    }

    #[test]
    fn honest_requests_are_followed_to_their_end() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(follow(&[bytes]), Ok(State::Head), "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(cut in 0_usize..150) {
            let bytes = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhel";
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(follow(&[first, second]), Ok(State::Body { left: 2 }));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = follow(&[&bytes]);
        }
    }
}
