//! The streams of one `douane/1` connection: each becomes a task, HTTP or opaque.

use std::{
    convert::Infallible,
    future::{poll_fn, ready},
    mem,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use h2::{RecvStream, ext::Protocol, server::SendResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tracing::debug;

use crate::{
    exchange::{
        body::Body,
        ledger::note,
        limits::{
            CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, MAX_LOCAL_RESETS, MAX_PENDING_RESETS, MAX_STREAMS,
            PREFACE, SEND_BUFFER, STREAM_WINDOW,
        },
        meter::{End, Metered},
        pump, retain,
        window::Windows,
    },
    inbound::{arrival::Arrival, http::Source, receiver::Receiver},
    limits::resting::Guest,
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::access::Direction,
};

/// The protocol of opaque streams (extended CONNECT, RFC 8441).
const OPAQUE: &str = "douane-tcp";
/// For a peer whose connection is needed for others, to see that it ends.
const LEAVE: Duration = Duration::from_secs(1);

impl Receiver {
    /// Serves a connection until its peer ends it, or until draining has let its streams finish.
    pub(super) async fn serve<I>(self: Rc<Self>, io: I, arrival: Rc<Arrival>)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        if let Err(error) = self.accept_streams(io, &arrival).await {
            debug!(%error, source = %arrival.source, "a peer's connection ended");
        }
    }

    async fn accept_streams<I>(self: &Rc<Self>, io: I, arrival: &Rc<Arrival>) -> Result<(), h2::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut builder = h2::server::Builder::new();
        builder
            .enable_connect_protocol()
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_concurrent_reset_streams(MAX_PENDING_RESETS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_frame_size(MAX_FRAME);
        let (io, meter) = Metered::new(io, End::Server);
        let Ok(connection) = tokio::time::timeout(PREFACE, builder.handshake::<_, Bytes>(io)).await else {
            return Err(h2::Reason::SETTINGS_TIMEOUT.into());
        };
        let mut connection = connection?;
        let Some(pings) = connection.ping_pong() else { return Err(h2::Reason::INTERNAL_ERROR.into()) };
        let mut windows = Windows::new(pings, meter);
        let guest = self.resting.enter(Instant::now().into_std());
        let mut streams = Streams::new(&self.shutdown, &guest);
        // Each of these waits is begun once, not with each stream.
        let mut draining = pin!(self.shutdown.draining.cancelled().fuse());
        let mut expiry = pin!(arrival.expiry().fuse());
        let mut forced = pin!(self.shutdown.forced.cancelled());
        let mut resting = pin!(tokio::time::sleep(self.limits.idle));
        let mut last_began = Instant::now();
        let mut leaves = false;
        loop {
            let next = tokio::select! {
                // What streams have to say leaves with what the connection has.
                biased;
                () = &mut forced => return Ok(()),
                never = streams.run() => match never {},
                next = connection.accept() => next,
                size = windows.next() => {
                    if !connection.has_streams() {
                        windows.rest();
                    }
                    windows.apply(size?, &mut connection);
                    continue;
                }
                () = &mut draining => {
                    // Says GOAWAY twice, so that no stream that is on its way gets lost.
                    connection.graceful_shutdown();
                    continue;
                }
                () = &mut expiry => {
                    // Streams in flight run on.
                    connection.graceful_shutdown();
                    continue;
                }
                () = guest.asked() => {
                    if !connection.has_streams() {
                        connection.graceful_shutdown();
                        (leaves, last_began) = (true, Instant::now());
                        resting.as_mut().reset(last_began + LEAVE);
                    }
                    continue;
                }
                () = &mut resting => {
                    if leaves && !connection.has_streams() {
                        // Its peer was told, and has not gone.
                        return Ok(());
                    }
                    let rested = last_began.elapsed() >= self.limits.idle;
                    if rested && !connection.has_streams() {
                        connection.graceful_shutdown();
                    }
                    let since = if rested { Instant::now() } else { last_began };
                    resting.as_mut().reset(since + self.limits.idle);
                    continue;
                }
            };
            let Some(stream) = next else { return Ok(()) };
            let (request, mut respond) = stream?;
            if arrival.has_expired() {
                // It was told; an honest peer opens a new connection, with its new certificate.
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            if arrival.resets.are_a_flood() {
                self.tell_of(arrival, &Refusal::ResetFlood);
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            last_began = Instant::now();
            guest.is_wanted(last_began.into_std());
            streams.begin(Rc::clone(self).stream(Rc::clone(arrival), request, respond));
        }
    }

    /// Records a refusal that belongs to no stream.
    pub(super) fn tell_of(&self, arrival: &Arrival, refusal: &Refusal) {
        let mut access = self.ledger.begin(Direction::Inbound, arrival.destination);
        arrival.describe(&mut access.record);
        note(&mut access.record, refusal);
    }

    // A peer that has called us for these traces keeps them. Says nothing to a stranger.
    fn keep_traces(&self, arrival: &Arrival, headers: &HeaderMap, respond: &mut SendResponse<Bytes>) {
        let mut answer = Response::new(());
        if arrival.is_of_mesh(&self.mesh.snapshot()) {
            retain::named(headers).for_each(|trace_id| self.ledger.keep(trace_id));
        } else {
            *answer.status_mut() = StatusCode::FORBIDDEN;
        }
        if let Err(error) = respond.send_response(answer, true) {
            debug!(%error, "an answer was not sent");
        }
    }

    async fn stream(
        self: Rc<Self>,
        arrival: Rc<Arrival>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
        match protocol.filter(|_| *request.method() == Method::CONNECT) {
            Some(OPAQUE) => return Box::pin(self.opaque(arrival, request, respond)).await,
            Some(retain::PROTOCOL) => return self.keep_traces(&arrival, request.headers(), &mut respond),
            _ => {}
        }
        let whose = Rc::clone(&arrival);
        let gone = poll_fn(|cx| respond.poll_reset(cx).map(|_| whose.resets.count()));
        let answer = self.answer(arrival, request.map(Body::from), Source::Sidecar, gone).await;
        send_answer(respond, answer).await;
    }
}

/// The streams of one connection, run by the task of the connection. When it ends before them they are run to their own
/// end: each sees that its peer has gone, and says so in its record.
struct Streams<'a, F: Future<Output = ()> + 'static> {
    running: FuturesUnordered<F>,
    guest: &'a Guest,
    shutdown: Shutdown,
}

impl<'a, F: Future<Output = ()> + 'static> Streams<'a, F> {
    fn new(shutdown: &Shutdown, guest: &'a Guest) -> Self {
        Self { running: FuturesUnordered::new(), guest, shutdown: shutdown.clone() }
    }

    fn begin(&self, stream: F) {
        self.running.push(stream);
    }

    // Runs all that can go on, for ever.
    async fn run(&mut self) -> Infallible {
        poll_fn(|cx| {
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
            if self.running.is_empty() {
                self.guest.rests();
            }
            Poll::Pending
        })
        .await
    }
}

impl<F: Future<Output = ()> + 'static> Drop for Streams<'_, F> {
    fn drop(&mut self) {
        if self.running.is_empty() || self.shutdown.forced.is_cancelled() {
            return;
        }
        let running = mem::take(&mut self.running);
        let forced = self.shutdown.forced.clone();
        self.shutdown.tasks.spawn_local(async move {
            tokio::select! {
                () = running.for_each(|()| ready(())) => {}
                () = forced.cancelled() => {}
            }
        });
    }
}

// The peer sees a reset; why is in the record.
async fn send_answer(mut respond: SendResponse<Bytes>, answer: Response<Body>) {
    let (mut head, body) = answer.into_parts();
    // Of an HTTP/1 answer; the frame says it here.
    head.version = http::Version::HTTP_2;
    let ended = http_body::Body::is_end_stream(&body);
    match respond.send_response(Response::from_parts(head, ()), ended) {
        Ok(_) if ended => {}
        Ok(stream) => {
            if let Err(error) = pump::send(body, stream).await {
                debug!(%error, "an answer was not sent to its end");
            }
        }
        Err(error) => debug!(%error, "an answer was not sent"),
    }
}
