//! Bytes both ways between an application's socket and a peer (another socket, or one stream of an HTTP/2
//! connection): half-close kept, bytes counted, idleness bounded, and no buffer held while nothing flows.
//!
//! Knows neither who talks nor what; the callers (`inbound/tcp`, `outbound/tcp`) do.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::{chunk, reading::Reading};

/// What has passed, and when last.
#[derive(Debug)]
pub struct Counts {
    /// Bytes from the client.
    pub up: Cell<u64>,
    /// Bytes to the client.
    pub down: Cell<u64>,
    last: Cell<Instant>,
}

/// Why a relay ended before both sides had said all.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A socket broke.
    #[error("socket")]
    Socket(#[from] io::Error),
    /// The stream broke, or its other end reset it.
    #[error("stream")]
    Stream(#[from] h2::Error),
    /// Nothing passed for too long.
    #[error("idle")]
    Idle,
}

impl Default for Counts {
    fn default() -> Self {
        Self { up: Cell::new(0), down: Cell::new(0), last: Cell::new(Instant::now()) }
    }
}

impl Counts {
    pub(super) fn up(&self, bytes: usize) {
        self.up.set(self.up.get() + bytes as u64);
        self.last.set(Instant::now());
    }

    pub(super) fn down(&self, bytes: usize) {
        self.down.set(self.down.get() + bytes as u64);
        self.last.set(Instant::now());
    }

    // Resolves once nothing has passed for `limit`. One timer that sleeps through, not one that each byte resets.
    async fn idle(&self, limit: Duration) {
        loop {
            let since = self.last.get().elapsed();
            let Some(rest) = limit.checked_sub(since).filter(|rest| !rest.is_zero()) else { return };
            tokio::time::sleep(rest).await;
        }
    }
}

/// From now on the socket's other end sees a reset, should we drop it for any reason (also when this process dies):
/// an ordinary end could be taken for the whole.
pub fn resets_unless_whole(socket: &TcpStream) {
    let _ = socket.set_zero_linger();
}

/// All was relayed: the socket ends in order.
pub fn is_whole(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(None);
}

/// Relays between two sockets; `first` was already read from the client.
///
/// # Errors
/// [`RelayError`], when it did not end with both sides' ends of stream.
pub async fn sockets(
    client: &mut TcpStream,
    first: Bytes,
    server: &mut TcpStream,
    counts: &Counts,
    idle: Duration,
) -> Result<(), RelayError> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        if !first.is_empty() {
            to_server.write_all(&first).await?;
            counts.up(first.len());
        }
        copy(&mut from_client, &mut to_server, |bytes| counts.up(bytes)).await
    };
    let down = copy(&mut from_server, &mut to_client, |bytes| counts.down(bytes));
    bounded(async { tokio::try_join!(up, down).map(drop) }, counts, idle).await
}

/// Relays an application that opened a connection: its bytes go up the stream, `answer` tells the stream back.
///
/// # Errors
/// [`RelayError`], or what `answer` says; the caller resets the socket then.
pub async fn client_to_stream<E: From<RelayError>>(
    client: &mut TcpStream,
    first: Bytes,
    send: &mut SendStream<Bytes>,
    answer: impl Future<Output = Result<RecvStream, E>>,
    counts: &Counts,
    idle: Duration,
) -> Result<(), E> {
    let (mut from_client, mut to_client) = client.split();
    // The application's bytes do not wait for the answer: that would cost a round trip.
    let up = async {
        let sent = async {
            if !first.is_empty() {
                counts.up(first.len());
                send_all(send, first).await?;
            }
            into_stream(&mut from_client, send, |bytes| counts.up(bytes)).await
        };
        match sent.await {
            // The other end wants no more. Why, its answer says: a refusal comes before its reset.
            Ok(()) | Err(RelayError::Stream(_)) => Ok(()),
            Err(error) => Err(E::from(error)),
        }
    };
    let down = async {
        let mut recv = answer.await?;
        from_stream(&mut recv, &mut to_client, |bytes| counts.down(bytes)).await.map_err(E::from)
    };
    let both = async { tokio::try_join!(up, down).map(drop) };
    tokio::select! {
        ended = both => ended,
        () = counts.idle(idle) => Err(RelayError::Idle.into()),
    }
}

/// Relays a peer's stream to the application's socket; `first` was already read from the stream.
///
/// # Errors
/// [`RelayError`], when it did not end with both sides' ends of stream.
pub async fn stream_to_server(
    recv: &mut RecvStream,
    first: Bytes,
    send: &mut SendStream<Bytes>,
    server: &mut TcpStream,
    counts: &Counts,
    idle: Duration,
) -> Result<(), RelayError> {
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        if !first.is_empty() {
            to_server.write_all(&first).await?;
            counts.up(first.len());
        }
        from_stream(recv, &mut to_server, |bytes| counts.up(bytes)).await
    };
    let down = into_stream(&mut from_server, send, |bytes| counts.down(bytes));
    bounded(async { tokio::try_join!(up, down).map(drop) }, counts, idle).await
}

pub(super) async fn bounded(
    both: impl Future<Output = Result<(), RelayError>>,
    counts: &Counts,
    idle: Duration,
) -> Result<(), RelayError> {
    tokio::select! {
        ended = both => ended,
        () = counts.idle(idle) => Err(RelayError::Idle),
    }
}

async fn copy(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    count: impl Fn(usize),
) -> Result<(), RelayError> {
    while let Some(chunk) = poll_fn(|cx| chunk::poll_read(from, cx)).await? {
        to.write_all(&chunk).await?;
        count(chunk.len());
    }
    Ok(to.shutdown().await?)
}

async fn into_stream(
    from: &mut ReadHalf<'_>,
    send: &mut SendStream<Bytes>,
    count: impl Fn(usize),
) -> Result<(), RelayError> {
    // Watching for a reset meanwhile: a silent application must not keep a dead stream.
    while let Some(chunk) = poll_fn(|cx| {
        if let Poll::Ready(reason) = send.poll_reset(cx) {
            return Poll::Ready(Err(RelayError::Stream(reason?.into())));
        }
        chunk::poll_read(from, cx).map_err(RelayError::from)
    })
    .await?
    {
        count(chunk.len());
        send_all(send, chunk).await?;
    }
    Ok(send.send_data(Bytes::new(), true)?)
}

async fn from_stream(
    recv: &mut RecvStream,
    to: &mut WriteHalf<'_>,
    count: impl Fn(usize),
) -> Result<(), RelayError> {
    let mut reading = Reading::default();
    while let Some(chunk) = poll_fn(|cx| reading.poll_data(recv, cx)).await {
        let chunk = chunk?;
        to.write_all(&chunk).await?;
        count(chunk.len());
        // Only what the socket took makes room for more.
        recv.flow_control().release_capacity(chunk.len())?;
    }
    Ok(to.shutdown().await?)
}

/// Sends all of `chunk` as the stream's flow control permits.
///
/// # Errors
/// When the stream was reset or its connection ended.
pub async fn send_all(send: &mut SendStream<Bytes>, mut chunk: Bytes) -> Result<(), h2::Error> {
    while !chunk.is_empty() {
        send.reserve_capacity(chunk.len());
        let Some(capacity) = poll_fn(|cx| send.poll_capacity(cx)).await.transpose()? else {
            return Err(h2::Reason::CANCEL.into());
        };
        send.send_data(chunk.split_to(capacity.min(chunk.len())), false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    /// Long for a relay that spins, and short for a test.
    const WATCHED: Duration = Duration::from_millis(100);

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_half_closed_connection_rests_until_the_other_half_speaks() {
        let ((mut client, mut from_client), (mut to_server, mut server)) =
            (connected().await, connected().await);
        let (counts, polls) = (Counts::default(), Cell::new(0));
        let idle = Duration::from_secs(60);
        let mut relay = pin!(sockets(&mut from_client, Bytes::new(), &mut to_server, &counts, idle));
        let relay = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            relay.as_mut().poll(cx)
        });
        let both = async {
            client.write_all(b"all I say").await.unwrap();
            client.shutdown().await.unwrap();
            let mut told = Vec::new();
            server.read_to_end(&mut told).await.unwrap();
            let before = polls.get();
            tokio::time::sleep(WATCHED).await;
            let rested = polls.get() - before;
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            (told, answer, rested)
        };

        let (ended, (told, answer, rested)) = tokio::join!(relay, both);

        ended.unwrap();
        assert_eq!((&told[..], &answer[..]), (&b"all I say"[..], &b"answer"[..]));
        assert!(rested < 10, "{rested} polls in {WATCHED:?}");
    }
}
