//! A port that nobody declared: is it HTTP that a client speaks, or anything else? Told before a byte of the client is
//! forwarded, also when it is long silent: then the application is connected, and whoever speaks first decides.
//!
//! Knows not whether the client is a stream or a socket; `tcp` and `plaintext` do, and go on with what it is.

use std::rc::Rc;

use douane_proto::{mesh::Protocol, policy::Permit};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use tokio::net::TcpStream;

use crate::{
    authz::{Allowed, Judged, Remarks, Running, Waits},
    exchange::{
        ledger::{SharedAccess, note_permit, note_remarks},
        place,
        serve::Framing,
    },
    inbound::{
        arrival::Arrival,
        receiver::{Receiver, no_body},
    },
    net::detect::{Heard, Opening, Speaker, Unasked, Word, first_word, speaks_unasked},
    refusal::Refusal,
};

/// What it is.
pub(super) enum Spoken {
    /// Each request is decided.
    Http(Framing),
    /// Bytes, decided on.
    Opaque(Admitted),
}

/// Bytes that were decided on.
pub(super) struct Admitted {
    /// The application.
    pub(super) server: TcpStream,
    /// What ends them, whatever they are.
    pub(super) ends: LocalBoxFuture<'static, Refusal>,
}

impl Receiver {
    /// Hears what is spoken on a port that nobody declared and whose law needs no HTTP. `said` is what the client has begun
    /// with; [`Opening::Silent`] where it has said nothing yet.
    pub(super) async fn hear(
        &self,
        client: &mut impl Speaker,
        heard: &mut Heard,
        said: Opening,
        arrival: &Arrival,
        access: &SharedAccess,
    ) -> Result<Spoken, Refusal> {
        if let Some(framing) = Framing::of(said) {
            return Ok(Spoken::Http(framing));
        }
        let is_silent = said == Opening::Silent;
        if is_silent && !heard.is_empty() {
            // It may be half of a request line, and would be a whole one with what comes next.
            return Err(Refusal::HeadTimeout);
        }
        let (server, ends) = match self.admit_opaque(arrival, access).await {
            Ok(admitted) => admitted,
            Err(denied) if is_silent && denied.is_denial() => {
                return self.hear_request(client, heard, denied).await;
            }
            Err(refusal) => return Err(refusal),
        };
        let mut admitted = Admitted { server, ends: ends.boxed_local() };
        if is_silent {
            let opening = self.break_silence(client, heard, &mut admitted, arrival).await?;
            if let Some(framing) = opening.and_then(Framing::of) {
                return Ok(Spoken::Http(framing));
            }
        }
        Ok(Spoken::Opaque(admitted))
    }

    // Who may send no bytes may yet be allowed requests.
    async fn hear_request(
        &self,
        client: &mut impl Speaker,
        heard: &mut Heard,
        denied: Refusal,
    ) -> Result<Spoken, Refusal> {
        let listening = heard.listen_for(client, self.limits.head, &self.limits);
        let opening = listening.await.map_err(|_| Refusal::ClientGone)?;
        Framing::of(opening).map(Spoken::Http).ok_or(denied)
    }

    // What the client speaks; `None` where the application was first.
    async fn break_silence(
        &self,
        client: &mut impl Speaker,
        heard: &mut Heard,
        Admitted { server, ends }: &mut Admitted,
        arrival: &Arrival,
    ) -> Result<Option<Opening>, Refusal> {
        let word = tokio::select! {
            biased;
            refusal = ends => return Err(refusal),
            word = first_word(client, heard, &self.limits, speaks_unasked(server)) => word,
            () = tokio::time::sleep(self.limits.idle) => return Err(Refusal::Idle),
        };
        match word.map_err(|_| Refusal::ClientGone)? {
            Word::Client(Opening::Silent) => Err(Refusal::HeadTimeout),
            Word::Client(opening) => Ok(Some(opening)),
            Word::Server(Ok(Unasked::Spoke)) => {
                self.learn(arrival.destination.port(), Protocol::Tcp);
                Ok(None)
            }
            // A broken server shows when bytes are relayed.
            Word::Server(Ok(Unasked::Ended) | Err(_)) => Ok(None),
        }
    }

    /// The application has shown what `port` speaks: worth telling where nobody declared it.
    pub(super) fn learn(&self, port: u16, protocol: Protocol) {
        if self.mesh.snapshot().own.protocol(port) == Protocol::Undeclared {
            self.mesh.learn(port, protocol);
        }
    }

    /// Decides on bytes and connects the application; also what ends them, whatever they are.
    pub(super) async fn admit_opaque(
        &self,
        arrival: &Arrival,
        access: &SharedAccess,
    ) -> Result<(TcpStream, impl Future<Output = Refusal> + use<>), Refusal> {
        let mut stream = Rc::new(Running::new(arrival.facts(None)));
        let mut remarks = Remarks::default();
        let decided = match self.judge.decide(&stream, &mut remarks) {
            Ok(Judged::Allowed(allowed)) => Ok(allowed),
            Ok(Judged::Ask(asked)) => {
                Box::pin(self.judge.ask(&mut stream, asked, &mut remarks, no_body)).await
            }
            Err(refusal) => Err(refusal),
        };
        note_remarks(&mut access.borrow_mut().record, remarks);
        let Allowed { permit, .. } = decided?;
        note_permit(&mut access.borrow_mut().record, &permit);
        place::take_now(&self.opaque.tenant(arrival.destination, arrival.holder()), access)?;
        let server = self.forward_opaque(permit, arrival).await?;
        Ok((server, async move { stream.ended(Waits::Exchange).await }))
    }

    // The one way to the application. The permit proves that a decision allowed it.
    pub(super) async fn forward_opaque(
        &self,
        _permit: Permit,
        arrival: &Arrival,
    ) -> Result<TcpStream, Refusal> {
        self.origins.connect(arrival.destination).await
    }
}
