//! What the first bytes of a connection speak: HTTP/1, HTTP/2, TLS, or something opaque; and who speaks first.
//!
//! The bytes are read, not peeked, and handed on ([`Prefixed`]): nothing is forwarded before it is told what it is. Knows
//! not what was declared, nor what is done with a protocol.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::{
    config::Limits,
    net::{
        line::{Line, RequestLine},
        pipe::Pipe,
    },
    tls::{
        TlsStream,
        sni::{self, Sni},
    },
};

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// What anybody may take for a request line of HTTP/1.
    Http1,
    /// The connection preface of HTTP/2 with prior knowledge.
    Http2,
    /// A ClientHello, whole, or as much of one as may be waited for.
    Tls,
    /// Something else.
    Other,
    /// Nothing that could be told in time: silence, or a beginning that fits several.
    Silent,
    /// The end of the stream, before anything was said.
    Closed,
}

impl Opening {
    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Other => "opaque",
            Self::Silent => "silent",
            Self::Closed => "closed",
        }
    }
}

/// How long an undeclared port's client may be silent before somebody else is heard (it may wait for the server to speak
/// first).
pub const SILENCE: Duration = Duration::from_millis(100);

// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// RFC 8446 5.1.
const HANDSHAKE: u8 = 22;
const READ: usize = 4 * 1024;
// Between two looks at a server that has begun to say what fits several.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What `bytes`, from the first on, begin; `None` when more are needed to tell.
#[must_use]
pub fn classify(bytes: &[u8]) -> Option<Opening> {
    Sniffer::default().tell(bytes)
}

/// Tells what bytes begin as they come, without looking twice at any.
#[derive(Debug, Default)]
struct Sniffer {
    wanted: Wanted,
    line: RequestLine,
    seen: usize,
    // Whole records of a ClientHello that were not enough to tell.
    records: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Wanted {
    #[default]
    Anything,
    Handshake,
}

impl Sniffer {
    fn tell(&mut self, bytes: &[u8]) -> Option<Opening> {
        match bytes {
            [] | [HANDSHAKE] => return None,
            // A record of TLS 1.0 to 1.3: all say version 3.x.
            [HANDSHAKE, 0x03, ..] => return self.is_hello(bytes).then_some(Opening::Tls),
            _ if self.wanted == Wanted::Handshake => return Some(Opening::Other),
            _ => {}
        }
        if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
            return None;
        }
        if bytes.starts_with(PREFACE) {
            return Some(Opening::Http2);
        }
        let fresh = bytes.get(self.seen..).unwrap_or_default();
        self.seen = bytes.len();
        match self.line.read(fresh)? {
            Line::Request => Some(Opening::Http1),
            Line::Other => Some(Opening::Other),
        }
    }

    // Parsed only with a whole record more, so that a client that dribbles costs no more than its records.
    fn is_hello(&mut self, bytes: &[u8]) -> bool {
        let records = sni::whole_records(bytes);
        if records == self.records && bytes.len() < sni::MAX_HELLO {
            return false;
        }
        self.records = records;
        sni::look(bytes) != Sni::Unfinished
    }
}

/// Somebody whose bytes are read. Dropping what reads loses no byte.
pub trait Speaker {
    /// Reads some bytes into `bytes`; 0 at the end.
    fn hear(&mut self, bytes: &mut BytesMut) -> impl Future<Output = io::Result<usize>>;
}

impl Speaker for TcpStream {
    async fn hear(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        read_some(self, bytes).await
    }
}

impl Speaker for TlsStream {
    async fn hear(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        read_some(self, bytes).await
    }
}

impl Speaker for Pipe {
    async fn hear(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        read_some(self, bytes).await
    }
}

async fn read_some(io: &mut (impl AsyncRead + Unpin), bytes: &mut BytesMut) -> io::Result<usize> {
    bytes.reserve(READ);
    io.read_buf(bytes).await
}

impl Speaker for RecvStream {
    // The bytes stay counted against the stream's window only while they are held here.
    async fn hear(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        loop {
            let Some(chunk) = poll_fn(|cx| self.poll_data(cx)).await else { return Ok(0) };
            let chunk = chunk.map_err(io::Error::other)?;
            self.flow_control().release_capacity(chunk.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(&chunk);
            // An empty frame is no end.
            if !chunk.is_empty() {
                return Ok(chunk.len());
            }
        }
    }
}

/// What was heard of somebody, none of which was forwarded yet.
#[derive(Debug, Default)]
pub struct Heard {
    bytes: BytesMut,
    sniffer: Sniffer,
    since: Option<Instant>,
}

impl Heard {
    /// Where bytes are declared, HTTP is no matter: anything but a handshake is told by its first byte.
    #[must_use]
    pub fn of_bytes() -> Self {
        Self { sniffer: Sniffer { wanted: Wanted::Handshake, ..Sniffer::default() }, ..Self::default() }
    }

    /// Listens until it can be told what is spoken. Waits without end for the first byte, and for what follows it as long
    /// as a head or a handshake may take. May be dropped and called again until it has told.
    ///
    /// # Errors
    /// As the speaker says.
    pub async fn listen(&mut self, to: &mut impl Speaker, limits: &Limits) -> io::Result<Opening> {
        loop {
            if let Some(opening) = self.sniffer.tell(&self.bytes) {
                return Ok(opening);
            }
            let is_handshake = self.bytes.first() == Some(&HANDSHAKE);
            let patience = if is_handshake { limits.handshake } else { limits.head };
            let hearing = to.hear(&mut self.bytes);
            let read = match self.since {
                None => hearing.await?,
                Some(since) => match tokio::time::timeout_at(since + patience, hearing).await {
                    Ok(read) => read?,
                    // It can become no request any more.
                    Err(_) if is_handshake => return Ok(Opening::Tls),
                    Err(_) => return Ok(Opening::Silent),
                },
            };
            if read == 0 {
                return Ok(if self.bytes.is_empty() { Opening::Closed } else { Opening::Other });
            }
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// The same; who has said nothing at all after `silence` is [`Opening::Silent`] as well.
    ///
    /// # Errors
    /// As the speaker says.
    pub async fn listen_for(
        &mut self,
        to: &mut impl Speaker,
        silence: Duration,
        limits: &Limits,
    ) -> io::Result<Opening> {
        let listening = self.listen(to, limits);
        let opening = if silence.is_zero() {
            // Timers are a millisecond coarse. What has come already is seen when the runtime has looked at its sockets.
            tokio::select! {
                biased;
                opening = listening => Some(opening),
                () = tokio::task::yield_now() => None,
            }
        } else {
            tokio::time::timeout(silence, listening).await.ok()
        };
        match opening {
            Some(opening) => opening,
            None if self.is_empty() => Ok(Opening::Silent),
            None => self.listen(to, limits).await,
        }
    }

    /// Was nothing said?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was said.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Is it a handshake?
    #[must_use]
    pub fn is_handshake(&self) -> bool {
        self.bytes.starts_with(&[HANDSHAKE, 0x03])
    }

    /// The server name of the ClientHello that was heard.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        match self.is_handshake().then(|| sni::look(&self.bytes))? {
            Sni::Name(name) => Some(name),
            Sni::None | Sni::Unfinished => None,
        }
    }

    /// All that was heard.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

/// Who broke the silence.
#[derive(Debug)]
pub enum Word<S> {
    /// The client, and what it speaks.
    Client(Opening),
    /// The server.
    Server(S),
}

/// Waits for whoever speaks first: the client, or `server`. Where both have spoken it is the client: its bytes may be a
/// request.
///
/// # Errors
/// As the client says.
pub async fn first_word<S>(
    client: &mut impl Speaker,
    heard: &mut Heard,
    limits: &Limits,
    server: impl Future<Output = S>,
) -> io::Result<Word<S>> {
    let server = pin!(server);
    tokio::select! {
        biased;
        opening = heard.listen(client, limits) => Ok(Word::Client(opening?)),
        said = server => Ok(Word::Server(said)),
    }
}

/// What a server did unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// It spoke first: no HTTP server does.
    Spoke,
    /// It closed without a word.
    Ended,
}

/// Resolves when a server has said, unasked, what no HTTP server says before it is asked; or has ended. The bytes stay
/// where they are.
///
/// # Errors
/// As the socket says.
pub async fn speaks_unasked(server: &TcpStream) -> io::Result<Unasked> {
    let mut first = [0; 9];
    loop {
        let read = server.peek(&mut first).await?;
        match first.get(..read).unwrap_or_default() {
            // An HTTP server's first word, which awaits a request all the same: it makes no stream opaque.
            said if begins_http(said) => tokio::time::sleep(LOOK_AGAIN).await,
            [] => return Ok(Unasked::Ended),
            _ => return Ok(Unasked::Spoke),
        }
    }
}

// SETTINGS (RFC 9113 3.4: a server may send them first), or a status line (408 to who is slow); or the beginning of one.
fn begins_http(said: &[u8]) -> bool {
    const STATUS: &[u8] = b"HTTP/";
    let is_status = !said.is_empty() && said.iter().zip(STATUS).all(|(byte, wanted)| byte == wanted);
    // Length in three bytes, type 4, no flags, stream 0.
    let is_settings = |(at, byte): (usize, &u8)| match at {
        0 | 4..=8 => *byte == 0,
        3 => *byte == 4,
        _ => true,
    };
    is_status || (!said.is_empty() && said.iter().enumerate().all(is_settings))
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
#[path = "detect_tests.rs"]
mod tests;
