//! A connection under mutual TLS that does not speak `douane/1`: of Istio's sidecars and gateways, of any client with a
//! certificate, and of our own peers where a request needs HTTP/1.1 from end to end.
//!
//! What the handshake agreed on says how bytes are framed, never which law applies: requests are decided one by one, and
//! bytes that nobody named are looked at. No word of our own dialect counts here. Next: `plaintext`, which serves the same
//! without an identity.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use douane_proto::{mesh::Protocol, mtls::MtlsMode};
use http::{HeaderMap, Response};

use crate::{
    exchange::{answer::refuse, body::Body, serve::Framing},
    inbound::{arrival::Arrival, beginning::Plain, receiver::Receiver},
    net::{
        conduit::Conduit,
        detect::{Heard, Opening, SILENCE},
    },
    refusal::Refusal,
    telemetry::{access::Direction, tracer::Caller},
    tls::Alpn,
};

impl Receiver {
    /// Serves a connection until it ends.
    pub(super) async fn foreign<C: Conduit>(
        self: Rc<Self>,
        mut io: C,
        alpn: Alpn,
        arrival: Rc<Arrival>,
    ) -> Result<(), Refusal> {
        // Half of an answer must not be taken for the whole.
        io.resets_unless_whole();
        match alpn {
            // Our own peers open these for what wants to switch protocols.
            Alpn::Http1 => self.http_on(&mut io, Bytes::new(), Framing::Http1AsSent, arrival).await.map(drop),
            Alpn::Http2 => self.http_on(&mut io, Bytes::new(), Framing::Http2, arrival).await.map(drop),
            Alpn::Douane1 | Alpn::Unsaid => self.unsaid(&mut io, arrival).await,
        }
    }

    /// Serves the pod's own connection to itself that wants to switch protocols.
    pub(super) async fn switching<C: Conduit>(self: Rc<Self>, io: C, arrival: Rc<Arrival>) {
        let receiver = Rc::clone(&self);
        if let Err(refusal) = receiver.foreign(io, Alpn::Http1, Rc::clone(&arrival)).await {
            self.tell_of(&arrival, &refusal);
        }
    }

    /// Refuses a request that came after its peer's certificate had ended.
    pub(super) fn too_late(&self, arrival: &Arrival) -> Response<Body> {
        let access = self.ledger.begin_traced(
            Direction::Inbound,
            arrival.destination,
            &mut HeaderMap::new(),
            Caller::Sidecar,
        );
        arrival.describe(&mut access.borrow_mut().record);
        let reason = "the certificate that it showed has ended".to_owned();
        refuse(access, &Refusal::Handshake { kind: "expired", reason })
    }

    async fn unsaid<C: Conduit>(self: Rc<Self>, io: &mut C, arrival: Rc<Arrival>) -> Result<(), Refusal> {
        let port = arrival.destination.port();
        let declared = self.mesh.snapshot().own.protocol(port);
        let mut heard = Heard::default();
        let opening = if declared == Protocol::Tcp {
            Opening::Other
        } else {
            let silence = if self.must_be_http(declared, port) { self.limits.head } else { SILENCE };
            let since = Instant::now();
            let listening = heard.listen_for(io, silence, &self.limits);
            let said = listening.await.map_err(|_| Refusal::ClientGone)?;
            if declared == Protocol::Undeclared {
                self.ledger.detected(Direction::Inbound, said, since);
            }
            said
        };
        // Inside mutual TLS a ClientHello is the application's own, as where only plaintext is taken.
        self.plaintext(io, Plain { opening, heard }, MtlsMode::Disable, arrival).await.map(drop)
    }
}
