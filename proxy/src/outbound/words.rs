//! What an application's connection leads to, and who speaks first on it where the client is silent: nothing is sent
//! before that is known.
//!
//! Knows not how it was opened, nor how it is relayed (`tcp`).

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::StatusCode;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    exchange::serve::Framing,
    net::{
        detect::{Heard, Opening, Speaker as _, Word, first_word, speaks_unasked},
        relay::{Counts, RelayError},
    },
    outbound::{balance::InFlight, pool::OnLine, sender::Sender},
    refusal::Refusal,
    tls::{Session, TlsStream},
};

/// The other end.
pub(super) enum Far {
    /// A peer, by a stream.
    Stream { answer: Answer, send: SendStream<Bytes>, address: SocketAddr, _guards: (OnLine, InFlight) },
    /// A peer that speaks Istio's dialect, by a connection.
    Foreign { io: TlsStream, session: Session, address: SocketAddr, _guard: InFlight },
    /// A server without a sidecar.
    Server { server: TcpStream, address: SocketAddr, _guard: InFlight },
}

/// The peer's answer to a stream.
pub(super) struct Answer {
    pending: Option<ResponseFuture>,
    recv: Option<RecvStream>,
}

/// Why a stream ended early.
pub(super) enum Ended {
    Refused(Refusal),
    Relay(RelayError),
}

impl Sender {
    /// Waits for whoever speaks first: HTTP of the client is told; of anything else the server's part has been passed on.
    pub(super) async fn hear(
        &self,
        far: &mut Far,
        client: &mut TcpStream,
        heard: &mut Heard,
        counts: &Counts,
    ) -> Result<Option<Framing>, Refusal> {
        let word = tokio::select! {
            word = first_word(client, heard, &self.limits, far.first()) => word,
            () = tokio::time::sleep(self.limits.idle) => return Err(Refusal::Idle),
        };
        match word.map_err(|_| Refusal::ClientGone)? {
            Word::Client(Opening::Silent) => Err(Refusal::HeadTimeout),
            Word::Client(opening) => Ok(Framing::of(opening)),
            Word::Server(said) => {
                if let Some(bytes) = said? {
                    client.write_all(&bytes).await.map_err(|_| Refusal::ClientGone)?;
                    counts.down.set(counts.down.get() + bytes.len() as u64);
                }
                Ok(None)
            }
        }
    }

    /// Waits for the request that alone may pass.
    pub(super) async fn hear_request(
        &self,
        client: &mut TcpStream,
        heard: &mut Heard,
        port: u16,
    ) -> Result<Option<Framing>, Refusal> {
        let listening = heard.listen_for(client, self.limits.head, &self.limits);
        let opening = listening.await.map_err(|_| Refusal::ClientGone)?;
        match (Framing::of(opening), opening) {
            (Some(framing), _) => Ok(Some(framing)),
            (None, Opening::Silent) => Err(Refusal::HeadTimeout),
            (None, Opening::Closed) => Err(Refusal::ClientGone),
            (None, _) => Err(Refusal::HttpNeeded(port)),
        }
    }
}

impl Far {
    /// Nothing was sent on it, and nothing will be.
    pub(super) fn let_go(self) {
        if let Self::Stream { mut send, .. } = self {
            send.send_reset(Reason::CANCEL);
        }
    }

    // What the server says first, as far as it had to be read.
    async fn first(&mut self) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Stream { answer, address, .. } => {
                answer.first(*address).await.map_err(|ended| ended.refusal(*address))
            }
            Self::Foreign { io, address, .. } => {
                let mut bytes = BytesMut::new();
                let read = io.hear(&mut bytes).await.map_err(|error| broken(*address, &error.into()))?;
                Ok((read > 0).then(|| bytes.freeze()))
            }
            Self::Server { server, address, .. } => {
                let spoke = speaks_unasked(server).await;
                spoke.map(|_| None).map_err(|error| broken(*address, &error.into()))
            }
        }
    }
}

impl Answer {
    pub(super) fn new(pending: ResponseFuture) -> Self {
        Self { pending: Some(pending), recv: None }
    }

    /// The stream back, once the peer has accepted.
    pub(super) async fn accepted(mut self, address: SocketAddr) -> Result<RecvStream, Ended> {
        self.accept(address).await?;
        self.recv.ok_or_else(gone)
    }

    // Its first bytes; none where it has ended. May be dropped and called again.
    async fn first(&mut self, address: SocketAddr) -> Result<Option<Bytes>, Ended> {
        self.accept(address).await?;
        let recv = self.recv.as_mut().ok_or_else(gone)?;
        let Some(bytes) = recv.data().await.transpose().map_err(RelayError::from)? else { return Ok(None) };
        recv.flow_control().release_capacity(bytes.len()).map_err(RelayError::from)?;
        Ok(Some(bytes))
    }

    async fn accept(&mut self, address: SocketAddr) -> Result<(), Ended> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let answer = pending.await;
        self.pending = None;
        let answer = answer.map_err(RelayError::from)?;
        match answer.status() {
            StatusCode::OK => {
                self.recv = Some(answer.into_body());
                Ok(())
            }
            status => Err(Ended::Refused(Refusal::PeerRefused { address, status })),
        }
    }
}

fn gone() -> Ended {
    RelayError::Stream(Reason::CANCEL.into()).into()
}

impl Ended {
    pub(super) fn refusal(self, address: SocketAddr) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Relay(error) => broken(address, &error),
        }
    }
}

impl From<RelayError> for Ended {
    fn from(error: RelayError) -> Self {
        Self::Relay(error)
    }
}

/// Why bytes to `address` ended early.
pub(super) fn broken(address: SocketAddr, error: &RelayError) -> Refusal {
    match error {
        RelayError::Idle => Refusal::Idle,
        RelayError::Stream(error) => Refusal::UpstreamFailed { address, reason: error.to_string() },
        RelayError::Socket(_) => Refusal::ClientGone,
    }
}
