//! One opaque stream from a peer: to the port it belongs to, decided once, cut when the law changes. On a port that
//! nobody declared, bytes that turn out to be HTTP are treated as HTTP.

use std::{future::pending, rc::Rc, time::Instant};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use futures_util::FutureExt as _;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Request, Response, StatusCode, request::Parts};

use crate::{
    exchange::{
        ledger::{SharedAccess, note},
        names::Names,
        serve::{self, Ended, Framing},
        stream_io::StreamIo,
    },
    inbound::{
        arrival::Arrival,
        http::Source,
        receiver::Receiver,
        words::{Admitted, Spoken},
    },
    net::{
        detect::{Heard, Opening, Prefixed},
        relay::{self, Counts, RelayError},
    },
    refusal::Refusal,
    telemetry::access::Direction,
};

impl Receiver {
    /// Serves an opaque stream.
    pub(super) async fn opaque(
        self: Rc<Self>,
        arrival: Rc<Arrival>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let (mut head, mut recv) = request.into_parts();
        let access = self.ledger.begin_traced(
            Direction::Inbound,
            arrival.destination,
            &mut head.headers,
            arrival.caller(&self.mesh.snapshot()),
        );
        arrival.describe(&mut access.borrow_mut().record);
        let mut heard = Heard::default();
        let served = match self.look_inside(&arrival, &head, &mut recv, &mut heard, &access).await {
            Ok(Spoken::Http(framing)) => {
                // Its requests have records and places of their own.
                access.borrow_mut().discard();
                drop(access);
                return self.http_inside(&arrival, recv, heard.into_bytes(), framing, &mut respond).await;
            }
            Ok(Spoken::Opaque(admitted)) => {
                self.relay_stream(&arrival, (recv, heard.into_bytes()), &mut respond, admitted, &access).await
            }
            Err(Refusal::ClientGone) if heard.is_empty() => {
                // Its client has spoken HTTP after all, or has gone without a word.
                return access.borrow_mut().discard();
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = served {
            note(&mut access.borrow_mut().record, &refusal);
            // Past the answer's head only a reset is left to say.
            if respond.send_response(status(refusal.status()), true).is_err() {
                respond.send_reset(Reason::CANCEL);
            }
        }
    }

    async fn look_inside(
        &self,
        arrival: &Arrival,
        head: &Parts,
        recv: &mut RecvStream,
        heard: &mut Heard,
        access: &SharedAccess,
    ) -> Result<Spoken, Refusal> {
        // The target is the connection's own; a stream cannot choose another.
        let asked = head.uri.authority().and_then(|name| name.as_str().parse().ok());
        if asked != Some(arrival.destination) {
            return Err(Refusal::ConnectNotAllowed("the target is not the connection's destination"));
        }
        let port = arrival.destination.port();
        let declared = self.mesh.snapshot().own.protocol(port);
        match declared {
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => return Err(Refusal::HttpNeeded(port)),
            // Declared opaque: rules that need HTTP are void (ALLOW) or widened (DENY) by the decision itself.
            Protocol::Tcp => return self.hear(recv, heard, Opening::Other, arrival, access).await,
            Protocol::Undeclared => {}
        }
        let since = Instant::now();
        // What the peer's application has said comes with the stream. The peer has waited where it was silent.
        let said = match heard.listen(recv, &self.limits).now_or_never() {
            Some(said) => said,
            None if heard.is_empty() => Ok(Opening::Silent),
            // A frame may hold less than was said: what is left of a window that others use as well.
            None => heard.listen(recv, &self.limits).await,
        };
        let said = said.map_err(|_| Refusal::ClientGone)?;
        self.ledger.detected(Direction::Inbound, said, since);
        if self.must_be_http(declared, port) {
            return Framing::of(said).map(Spoken::Http).ok_or(Refusal::HttpNeeded(port));
        }
        self.hear(recv, heard, said, arrival, access).await
    }

    async fn relay_stream(
        &self,
        arrival: &Arrival,
        (mut recv, first): (RecvStream, Bytes),
        respond: &mut SendResponse<Bytes>,
        Admitted { mut server, ends }: Admitted,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        let mut send = accept(respond)?;
        relay::resets_unless_whole(&server);
        access.borrow_mut().opened();
        let counts = Counts::default();
        let ended = tokio::select! {
            ended = relay::stream_to_server(&mut recv, first, &mut send, &mut server, &counts, self.limits.idle) => {
                ended.map_err(|error| broken(arrival, error))
            }
            refusal = ends => Err(refusal),
        };
        let record = &mut access.borrow_mut().record;
        (record.bytes_in, record.bytes_out) = (counts.up.get(), counts.down.get());
        match ended {
            Ok(()) => relay::is_whole(&server),
            // Neither side may take what it has for the whole.
            Err(_) => send.send_reset(Reason::CANCEL),
        }
        ended
    }

    async fn http_inside(
        self: &Rc<Self>,
        arrival: &Rc<Arrival>,
        recv: RecvStream,
        first: Bytes,
        framing: Framing,
        respond: &mut SendResponse<Bytes>,
    ) {
        let Ok(send) = accept(respond) else { return };
        let names = Names::at(&self.mesh.snapshot().own, arrival.destination.port());
        let framing = framing.spelt(names).spelt(Names::asked_by(&first));
        let io = Prefixed::new(first, StreamIo::new(recv, send));
        let (receiver, arrival) = (Rc::clone(self), Rc::clone(arrival));
        // Without its end the stream is reset, so that a cut needs no other word.
        let ended = serve::serve(io, framing, self.limits, &self.shutdown, {
            let arrival = Rc::clone(&arrival);
            move |request, verdict| {
                let (receiver, arrival) = (Rc::clone(&receiver), Rc::clone(&arrival));
                // Of a client that has gone, the server of this stream drops the requests itself.
                receiver.answer(arrival, request, Source::Application(verdict), pending())
            }
        });
        if ended.await == Ended::Late {
            let mut access = self.ledger.begin(Direction::Inbound, arrival.destination);
            arrival.describe(&mut access.record);
            note(&mut access.record, &Refusal::HeadTimeout);
        }
    }
}

fn accept(respond: &mut SendResponse<Bytes>) -> Result<SendStream<Bytes>, Refusal> {
    respond.send_response(status(StatusCode::OK), false).map_err(|_| Refusal::ClientGone)
}

fn status(status: StatusCode) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    answer
}

fn broken(arrival: &Arrival, error: RelayError) -> Refusal {
    match error {
        RelayError::Idle => Refusal::Idle,
        RelayError::Stream(_) => Refusal::ClientGone,
        RelayError::Socket(error) => {
            Refusal::UpstreamFailed { address: arrival.destination, reason: error.to_string() }
        }
    }
}
