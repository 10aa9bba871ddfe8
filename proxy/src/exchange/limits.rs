//! The bounds that the wire formats need, in one place. What an operator may choose is in `config::Limits`.

use std::time::Duration;

/// Headers of one request or answer.
pub const MAX_HEADERS: usize = 100;
/// Bytes of one request head, and of the buffers of one HTTP/1 connection.
pub const MAX_HEAD: usize = 64 * 1024;
/// The same as HTTP/2 counts it (RFC 9113 6.5.2).
pub const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Streams at once on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 100;
/// Start of a stream's and a connection's HTTP/2 window (design.md section 6).
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Of connections that we open to HTTP/2 servers: start, and end, of a stream's window. hyper's do not grow.
pub const SERVER_STREAM_WINDOW: u32 = 128 * 1024;
/// The same of the connection: more than its streams can fill, so that answers nobody reads hold up no others.
pub const SERVER_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// What they grow to at most, under the byte budget; the connection's to four times as much.
pub const MAX_STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that may wait to be sent on one stream.
pub const SEND_BUFFER: usize = 64 * 1024;
/// Resets a peer may have pending, and that we make for its faults, before the connection ends (rapid reset).
pub const MAX_PENDING_RESETS: usize = 20;
/// See [`MAX_PENDING_RESETS`].
pub const MAX_LOCAL_RESETS: usize = 128;
/// Larger frames carry a bulk transfer with fewer headers; one is one to four TLS records.
pub const MAX_FRAME: u32 = 64 * 1024;
/// Settings and preface of HTTP/2 must have come in this time.
pub const PREFACE: Duration = Duration::from_secs(5);

const _: () =
    assert!(MAX_STREAMS * SERVER_STREAM_WINDOW < SERVER_CONNECTION_WINDOW, "its streams must not fill it");
