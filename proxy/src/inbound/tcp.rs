//! One opaque stream from a peer: to the port it belongs to, decided once, cut when the law changes. On a port that
//! nobody declared, bytes that turn out to be HTTP are treated as HTTP.

use std::{future::pending, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use douane_proto::{mesh::Protocol, policy::Permit};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Request, Response, StatusCode, request::Parts};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    authz::{Allowed, Remarks},
    exchange::{
        ledger::{SharedAccess, note, note_permit, note_remarks},
        serve::{self, Ended, Framing},
        stream_io::StreamIo,
    },
    inbound::{
        arrival::Arrival,
        http::Source,
        receiver::{Receiver, no_body},
    },
    net::{
        detect::{Opening, Prefixed, SILENCE, classify},
        relay::{self, Counts, RelayError},
    },
    refusal::Refusal,
    telemetry::access::Direction,
};

// What an opaque stream turned out to be.
enum Inside {
    Http(Framing, Bytes),
    Opaque(Bytes),
}

impl Receiver {
    /// Serves an opaque stream.
    pub(super) async fn opaque(
        self: Rc<Self>,
        arrival: Rc<Arrival>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let (head, mut recv) = request.into_parts();
        let first = match self.look_inside(&arrival, &head, &mut recv).await {
            // Its requests have records of their own.
            Ok(Inside::Http(framing, first)) => {
                return self.http_inside(&arrival, recv, first, framing, &mut respond).await;
            }
            Ok(Inside::Opaque(first)) => Ok(first),
            Err(refusal) => Err(refusal),
        };
        let access = self.ledger.begin_traced(Direction::Inbound, arrival.destination, &head.headers);
        arrival.describe(&mut access.borrow_mut().record);
        let relayed = match first {
            Ok(first) => self.relay_stream(&arrival, recv, first, &mut respond, &access).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = relayed {
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
    ) -> Result<Inside, Refusal> {
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
            Protocol::Tcp => return Ok(Inside::Opaque(Bytes::new())),
            Protocol::Undeclared => {}
        }
        let needs_http = self.must_be_http(declared, port);
        let (opening, first) = sniff(recv, if needs_http { self.limits.head } else { SILENCE }).await?;
        match opening {
            Opening::Http1 => Ok(Inside::Http(Framing::Http1, first)),
            Opening::Http2 => Ok(Inside::Http(Framing::Http2, first)),
            _ if needs_http => Err(Refusal::HttpNeeded(port)),
            _ => Ok(Inside::Opaque(first)),
        }
    }

    async fn relay_stream(
        &self,
        arrival: &Arrival,
        mut recv: RecvStream,
        first: Bytes,
        respond: &mut SendResponse<Bytes>,
        access: &SharedAccess,
    ) -> Result<(), Refusal> {
        let (mut server, ends) = self.admit_opaque(arrival, access).await?;
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

    /// Decides on bytes and connects the application; also what ends them, whatever they are.
    pub(super) async fn admit_opaque(
        &self,
        arrival: &Arrival,
        access: &SharedAccess,
    ) -> Result<(TcpStream, impl Future<Output = Refusal> + use<>), Refusal> {
        let mut law = self.mesh.policies();
        let mut remarks = Remarks::default();
        let decided = self.judge.authorize(&mut law, arrival.facts(None), &mut remarks, no_body).await;
        note_remarks(&mut access.borrow_mut().record, remarks);
        let Allowed { permit, facts, said, .. } = decided?;
        note_permit(&mut access.borrow_mut().record, &permit);
        let server = self.forward_opaque(permit, arrival).await?;
        Ok((server, self.or_too_old(Rc::clone(&self.judge).revoked(law, facts, said))))
    }

    // The one way to the application. The permit proves that a decision allowed it.
    async fn forward_opaque(&self, _permit: Permit, arrival: &Arrival) -> Result<TcpStream, Refusal> {
        self.origins.connect(arrival.destination).await
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
        let io = Prefixed::new(first, StreamIo::new(recv, send));
        let (receiver, arrival) = (Rc::clone(self), Rc::clone(arrival));
        // Without its end the stream is reset, so that a cut needs no other word.
        let ended = serve::serve(io, framing, self.limits, &self.shutdown, {
            let arrival = Rc::clone(&arrival);
            move |request, verdict| {
                let (receiver, arrival) = (Rc::clone(&receiver), Rc::clone(&arrival));
                // Of a client that has gone, the server of this stream drops the requests itself.
                async move { receiver.answer(&arrival, request, Source::Application(verdict), pending()).await }
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

// The bytes stay counted against the stream's window only while they are held here.
async fn sniff(recv: &mut RecvStream, patience: Duration) -> Result<(Opening, Bytes), Refusal> {
    let until = Instant::now() + patience;
    let mut read = BytesMut::new();
    loop {
        let Ok(next) = tokio::time::timeout_at(until, recv.data()).await else {
            return Ok((Opening::Silent, read.freeze()));
        };
        let Some(chunk) = next.transpose().map_err(|_| Refusal::ClientGone)? else {
            return Ok((Opening::Closed, read.freeze()));
        };
        recv.flow_control().release_capacity(chunk.len()).map_err(|_| Refusal::ClientGone)?;
        read.extend_from_slice(&chunk);
        if let Some(opening) = classify(&read) {
            return Ok((opening, read.freeze()));
        }
    }
}
