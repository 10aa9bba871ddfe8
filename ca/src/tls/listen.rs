//! From an accepted socket to a secured [`Connection`]: each takes a place, and who has proven no identity is bounded in
//! number and time, so that strangers cannot keep sidecars out.
//!
//! Knows not what is served on a connection.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, Sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::{
    error::TlsError,
    server::Tls,
    strangers::{Bounds, Stranger, Strangers},
};
use crate::{
    budget::{Budgets, household},
    metrics::Metrics,
    peer::Peer,
};

/// Out of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every listener of ours shares.
#[derive(Clone)]
pub struct Gate {
    /// The handshake.
    pub tls: Arc<Tls>,
    /// One for each connection while it lives.
    pub places: Arc<Semaphore>,
    /// Who has proven nothing.
    pub strangers: Strangers,
    /// How often an address may begin a handshake.
    pub rates: Arc<Budgets<IpAddr>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A secured connection with the one who is at its other end, as tonic takes it.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    visit: Option<Visit>,
    _place: OwnedSemaphorePermit,
}

enum Stream {
    Secured(Box<TlsStream<TcpStream>>),
    Local(UnixStream),
}

// A connection without an identity: to ask for a certificate takes seconds, and nothing else can be had.
struct Visit {
    end: Pin<Box<Sleep>>,
    _seat: Option<Stranger>,
}

/// Accepts and secures connections until `stop`.
pub async fn listen(
    listener: TcpListener,
    gate: Gate,
    secured: mpsc::Sender<Connection>,
    stop: CancellationToken,
) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &gate.places) => accepted,
        };
        match accepted {
            Ok((place, stream, from)) => {
                failing = false;
                let (gate, secured) = (gate.clone(), secured.clone());
                // A slow handshake never holds up the next connection.
                tokio::spawn(async move { gate.receive(stream, from, place, &secured).await });
            }
            Err(error) => {
                // Said once: it comes again twenty times a second.
                if !failing {
                    tracing::error!(%error, "connections cannot be accepted");
                }
                failing = true;
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    Ok((place, stream, from))
}

impl Gate {
    async fn receive(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        place: OwnedSemaphorePermit,
        secured: &mpsc::Sender<Connection>,
    ) {
        match self.secure(stream, from, place).await {
            Ok(connection) => {
                // Fails only when the server has ended.
                let _ = secured.send(connection).await;
            }
            Err(error) => {
                self.metrics.handshake_failed();
                tracing::info!(%error, peer = %from, "a handshake failed");
            }
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<Connection, TlsError> {
        // A handshake costs us more than whoever asks for it.
        self.rates
            .take(household(from.ip()), 1.0, std::time::Instant::now())
            .map_err(|_| TlsError::Crowded)?;
        // Until the handshake has shown otherwise, everybody is a stranger.
        let seat = self.strangers.seat(from.ip()).ok_or(TlsError::Crowded)?;
        let (stream, peer) = self.tls.accept(stream).await?;
        let visit = peer.id.is_none().then(|| Visit::of(self.strangers.bounds(), Some(seat)));
        Ok(Connection { stream: Stream::Secured(Box::new(stream)), peer, visit, _place: place })
    }
}

impl Visit {
    fn of(bounds: Bounds, seat: Option<Stranger>) -> Self {
        Self { end: Box::pin(time::sleep(bounds.visit)), _seat: seat }
    }
}

impl Connection {
    /// Of a process of this machine, which stays as briefly as a stranger.
    pub(super) fn local(stream: UnixStream, peer: Peer, bounds: Bounds, place: OwnedSemaphorePermit) -> Self {
        let visit = Some(Visit::of(bounds, None));
        Self { stream: Stream::Local(stream), peer, visit, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(visit) = &mut self.visit
            && visit.end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match &mut self.stream {
            Stream::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Local(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Local(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Local(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Secured(stream) => stream.is_write_vectored(),
            Stream::Local(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Secured(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Local(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Local(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
