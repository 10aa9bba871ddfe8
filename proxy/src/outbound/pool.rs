//! One warm connection to each peer, shared by all requests and opaque streams to it, so that none pays a handshake.
//!
//! A connection belongs to an address and port, the identity expected there, a generation of our own identity and a
//! class of dialect. A new generation takes new streams at once; the old connection gets none, and ends with its last.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use douane_proto::id::WorkloadId;
use foldhash::fast::RandomState;
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use h2::client::SendRequest;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tracing::debug;

use crate::{
    config::Limits,
    exchange::{
        limits::{
            CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, MAX_LOCAL_RESETS, MAX_PENDING_RESETS, MAX_STREAMS,
            PREFACE, SEND_BUFFER, STREAM_WINDOW,
        },
        meter::{End, Meter, Metered},
        window::Windows,
    },
    limits::pressure::when_tight,
    net::{
        hairpin::{Hairpins, Load},
        pipe::Pipe,
        socket::Sockets,
    },
    outbound::resolve::{Candidate, Place},
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::access::{Protection, Record},
    tls::{Greeting, Mtls, Offer, Session, TlsError, TlsStream},
};

const SWEEP: Duration = Duration::from_secs(10);
const SWEEP_DRAINING: Duration = Duration::from_millis(50);

/// The warm connections.
#[derive(Debug, Clone)]
pub struct Pool(Rc<Inner>);

/// A warm connection. While somebody holds it, it lives.
#[derive(Debug)]
pub struct Line {
    send: SendRequest<Bytes>,
    /// Who answers there, and who we are.
    pub ends: Ends,
    state: Rc<State>,
}

/// Both ends of a line, for the record.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The verified peer.
    pub peer: WorkloadId,
    /// Who we proved to be.
    pub local: WorkloadId,
    /// What protects it.
    pub protection: Protection,
}

/// A stream's place on a line, free again when this is dropped.
#[derive(Debug)]
pub struct OnLine(Rc<Line>);

/// By what a connection is found again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: SocketAddr,
    expected: WorkloadId,
    place: Place,
    generation: u64,
    // The class: what the connection was opened for.
    offer: Offer,
    server_name: Option<Arc<str>>,
}

#[derive(Debug)]
struct State {
    streams: Cell<u32>,
    used: Cell<Instant>,
    // Set by the task that drives the connection.
    ended: Cell<bool>,
}

type Connecting = Shared<LocalBoxFuture<'static, Result<(), Refusal>>>;

#[derive(Debug, Default)]
struct Lines {
    open: Vec<Rc<Line>>,
    connecting: Option<Connecting>,
}

#[derive(Debug)]
struct Inner {
    mtls: Mtls,
    sockets: Sockets,
    hairpins: Hairpins,
    shutdown: Shutdown,
    limits: Limits,
    lines: RefCell<HashMap<Key, Lines, RandomState>>,
}

impl Pool {
    /// Connects by `sockets`, proves itself by `mtls`; the own pod is reached by `hairpins`.
    #[must_use]
    pub fn new(mtls: Mtls, sockets: Sockets, hairpins: Hairpins, shutdown: Shutdown, limits: Limits) -> Self {
        Self(Rc::new(Inner { mtls, sockets, hairpins, shutdown, limits, lines: RefCell::default() }))
    }

    /// A place for one stream to `peer`, on a connection of the newest generation.
    ///
    /// # Errors
    /// [`Refusal::ConnectFailed`], or [`Refusal::PeerHandshake`] when it could not prove to be `peer.id`.
    pub async fn line(&self, peer: &Candidate) -> Result<OnLine, Refusal> {
        loop {
            let key = self.key(peer, Offer::Douane1);
            if let Some(line) = self.choose(&key) {
                return Ok(line);
            }
            self.connecting(&key).await?;
        }
    }

    /// Closes lines that rest, and all that rest once draining has begun; ends when nothing is served any more. Not
    /// itself one of the tracked tasks.
    pub async fn run(&self) {
        let Shutdown { draining, forced, tasks } = &self.0.shutdown;
        while !draining.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => self.sweep(when_tight(self.0.limits.pool_idle)),
                () = draining.cancelled() => {}
            }
        }
        while !tasks.is_empty() && !forced.is_cancelled() {
            self.sweep(Duration::ZERO);
            tokio::time::sleep(SWEEP_DRAINING).await;
        }
    }

    /// The generation of each open line.
    #[must_use]
    pub fn generations(&self) -> Vec<u64> {
        let all = self.0.lines.borrow();
        all.iter().flat_map(|(key, lines)| lines.open.iter().map(|_| key.generation)).collect()
    }

    /// Is there one already, with room?
    pub(super) fn has_line(&self, peer: &Candidate) -> bool {
        self.choose(&self.key(peer, Offer::Douane1)).is_some()
    }

    /// A place on a line to `peer` that is open already.
    pub(super) fn open_line(&self, address: SocketAddr, peer: &WorkloadId) -> Option<OnLine> {
        let all = self.0.lines.borrow();
        let of_peer = all.iter().filter(|(key, _)| {
            key.address == address && key.expected == *peer && key.offer == Offer::Douane1
        });
        let mut open = of_peer.flat_map(|(_, lines)| &lines.open);
        let has_room = |line: &&Rc<Line>| !line.state.ended.get() && line.state.streams.get() < MAX_STREAMS;
        open.find(has_room).map(OnLine::take)
    }

    /// By what a connection to `peer`, of the newest generation, is found again.
    pub(super) fn key(&self, peer: &Candidate, offer: Offer) -> Key {
        Key {
            address: peer.address,
            expected: peer.id.clone(),
            place: peer.place,
            generation: self.0.mtls.identity().generation,
            offer,
            server_name: peer.server_name.clone(),
        }
    }

    // The one function that chooses: the first line with room, so that the others can end.
    fn choose(&self, key: &Key) -> Option<OnLine> {
        let mut all = self.0.lines.borrow_mut();
        let lines = all.get_mut(key)?;
        lines.open.retain(|line| !line.state.ended.get());
        lines.open.iter().find(|line| line.state.streams.get() < MAX_STREAMS).map(OnLine::take)
    }

    // All who wait for the same peer wait for one handshake.
    fn connecting(&self, key: &Key) -> Connecting {
        let mut all = self.0.lines.borrow_mut();
        // An older generation gets no new stream: forgotten here, its lines end with their last stream.
        all.retain(|other, _| {
            other.generation >= key.generation
                || (other.address, &other.expected, other.place) != (key.address, &key.expected, key.place)
        });
        let lines = all.entry(key.clone()).or_default();
        if let Some(connecting) = lines.connecting.as_ref().filter(|connecting| connecting.peek().is_none()) {
            return connecting.clone();
        }
        let (pool, key) = (self.clone(), key.clone());
        let connecting = async move {
            let opened = pool.open(&key).await;
            if let Some(lines) = pool.0.lines.borrow_mut().get_mut(&key) {
                lines.connecting = None;
                if let Ok(line) = &opened {
                    lines.open.push(Rc::clone(line));
                }
            }
            opened.map(drop)
        };
        let connecting = connecting.boxed_local().shared();
        lines.connecting = Some(connecting.clone());
        connecting
    }

    async fn open(&self, key: &Key) -> Result<Rc<Line>, Refusal> {
        let address = key.address;
        if key.place == Place::Own {
            let (io, ends) = self.turn_back(address, Load::Streams).await?;
            return self.start(io, address, ends, None).await;
        }
        let (io, session) = self.dial(key).await?;
        self.start(io, address, Ends::of(&session), Some(session)).await
    }

    /// A new connection to the own pod.
    pub(super) async fn turn_back(&self, address: SocketAddr, load: Load) -> Result<(Pipe, Ends), Refusal> {
        let io = self.0.hairpins.open(address, load).await.ok_or(Refusal::Draining)?;
        let local = self.0.mtls.identity().svid.leaf.id.clone();
        Ok((io, Ends { peer: local.clone(), local, protection: Protection::None }))
    }

    /// Makes a connection of its peer's that answered `douane/1`, whatever else it was offered.
    pub(super) async fn adopt(
        &self,
        peer: &Candidate,
        io: TlsStream,
        session: Session,
    ) -> Result<(), Refusal> {
        let key = self.key(peer, Offer::Douane1);
        let line = self.start(io, peer.address, Ends::of(&session), Some(session)).await?;
        self.0.lines.borrow_mut().entry(key).or_default().open.push(line);
        Ok(())
    }

    /// A new connection, its peer proven to be who is expected.
    pub(super) async fn dial(&self, key: &Key) -> Result<(TlsStream, Session), Refusal> {
        let (inner, address) = (&self.0, key.address);
        let socket = inner
            .sockets
            .connect(address, inner.limits.connect)
            .await
            .map_err(|error| Refusal::ConnectFailed { address, reason: error.to_string() })?;
        let greeting = Greeting { offer: key.offer, server_name: key.server_name.as_deref() };
        let shaken = inner.mtls.connect_with(socket, &key.expected, greeting);
        tokio::time::timeout(inner.limits.handshake, shaken)
            .await
            .map_err(|_| Refusal::HandshakeTimeout)?
            .map_err(|error| match error {
                // The peer's sidecar is gone; another endpoint may be there.
                TlsError::Handshake(error) => Refusal::ConnectFailed { address, reason: error.to_string() },
                error => Refusal::PeerHandshake {
                    address,
                    expected: key.expected.clone(),
                    kind: error.kind(),
                    reason: error.to_string(),
                },
            })
    }

    /// Ends when the root that vouches for the session's peer is no longer trusted.
    pub(super) fn distrusted(&self, session: Session) -> impl Future<Output = ()> + use<> {
        let mtls = self.0.mtls.clone();
        async move { mtls.distrusted(&session).await }
    }

    async fn start<I>(
        &self,
        io: I,
        address: SocketAddr,
        ends: Ends,
        session: Option<Session>,
    ) -> Result<Rc<Line>, Refusal>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(MAX_STREAMS as usize)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_concurrent_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_frame_size(MAX_FRAME);
        let failed = |reason: String| Refusal::ConnectFailed { address, reason };
        let (io, meter) = Metered::new(io, End::Client);
        let (send, connection) = tokio::time::timeout(PREFACE, builder.handshake::<_, Bytes>(io))
            .await
            .map_err(|_| failed("no HTTP/2 preface in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let state = Rc::new(State {
            streams: Cell::new(0),
            used: Cell::new(Instant::now()),
            ended: Cell::new(false),
        });
        let (mtls, forced, ended) = (self.0.mtls.clone(), self.0.shutdown.forced.clone(), Rc::clone(&state));
        let ended_at_expiry = Rc::clone(&state);
        self.0.shutdown.tasks.spawn_local(async move {
            let expiry = async {
                match &session {
                    Some(session) => tokio::time::sleep_until(session.peer_expires()).await,
                    None => std::future::pending().await,
                }
                // The peer must prove itself anew to be given more; what is in flight runs on.
                ended_at_expiry.ended.set(true);
                std::future::pending::<()>().await;
            };
            let distrusted = async {
                match &session {
                    Some(session) => mtls.distrusted(session).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                error = drive(connection, meter, &ended) => debug!(%address, ?error, "a line ended"),
                () = distrusted => debug!(%address, "a line's root of trust has left the bundle"),
                () = expiry => {}
                () = forced.cancelled() => {}
            }
            ended.ended.set(true);
        });
        Ok(Rc::new(Line { send, ends, state }))
    }

    fn sweep(&self, rest: Duration) {
        let newest = self.0.mtls.identity().generation;
        self.0.lines.borrow_mut().retain(|key, lines| {
            lines.open.retain(|line| {
                let state = &line.state;
                let rests = state.streams.get() == 0 && state.used.get().elapsed() >= rest;
                !state.ended.get() && !rests && key.generation >= newest
            });
            // A handshake that nobody waits for any more would never end.
            let awaited = |connecting: &Connecting| connecting.strong_count().is_some_and(|count| count > 1);
            lines.connecting.take_if(|connecting| !awaited(connecting));
            !lines.open.is_empty() || lines.connecting.is_some()
        });
    }
}

impl Key {
    /// Where its peer listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Ends {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            peer: session.peer.clone(),
            local: session.local.clone(),
            protection: Protection::Mtls {
                version: session.version,
                group: session.group.clone(),
                binding: session.binding,
            },
        }
    }

    /// Writes them into a record.
    pub(super) fn describe(&self, record: &mut Record) {
        record.peer = Some(self.peer.clone());
        record.local = Some(self.local.clone());
        record.protection = self.protection.clone();
    }
}

impl OnLine {
    fn take(line: &Rc<Line>) -> Self {
        line.state.streams.set(line.state.streams.get() + 1);
        Self(Rc::clone(line))
    }

    /// Both ends, for the record.
    #[must_use]
    pub fn ends(&self) -> &Ends {
        &self.0.ends
    }

    /// Ready to send one request.
    ///
    /// # Errors
    /// When the line has ended, or its peer takes no new stream (GOAWAY): nothing was sent.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        let ready = self.0.send.clone().ready().await;
        if ready.is_err() {
            self.0.state.ended.set(true);
        }
        ready
    }

    /// Its peer takes no new stream: the next goes on another line.
    pub fn retire(&self) {
        self.0.state.ended.set(true);
    }
}

impl Drop for OnLine {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.streams.set(state.streams.get().saturating_sub(1));
        state.used.set(Instant::now());
    }
}

// Drives the connection, and lets its windows grow; ends when the peer answers no ping any more.
async fn drive<I>(
    mut connection: h2::client::Connection<Metered<I>, Bytes>,
    meter: Rc<Meter>,
    state: &State,
) -> Result<(), h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let Some(pings) = connection.ping_pong() else { return connection.await };
    let mut windows = Windows::new(pings, meter);
    loop {
        let size = tokio::select! {
            ended = &mut connection => return ended,
            size = windows.next() => size?,
        };
        if state.streams.get() == 0 {
            windows.rest();
        }
        windows.apply(size, &mut connection);
    }
}
