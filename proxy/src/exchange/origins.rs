//! HTTP to plaintext servers: the pod's own application (inbound), and hosts without a sidecar (outbound).
//!
//! Knows not whether a request may be sent; its callers do. Connections are kept by [`crate::exchange::clients`].

use std::{future::pending, net::SocketAddr, time::Duration};

use http::{Request, Response, Version};
use tokio::net::TcpStream;

use crate::{
    exchange::{
        body::Body,
        clients::{Client, Clients, Failed, Opened},
        headers::Speech,
        names::Names,
    },
    net::socket::Sockets,
    refusal::Refusal,
    shutdown::Shutdown,
};

/// How long they are waited for, and kept.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Connecting.
    pub connect: Duration,
    /// A connection between two requests.
    pub rest: Duration,
}

/// A server, and how it hears names.
type Server = (SocketAddr, Names);

/// The plaintext servers we talk to.
#[derive(Debug)]
pub struct Origins {
    sockets: Sockets,
    times: Times,
    clients: Clients<Server, ()>,
}

/// A request without an answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub refusal: Refusal,
    /// The request, where nothing of it was sent: another server may have it.
    pub unsent: Option<Box<Request<Body>>>,
}

impl Origins {
    /// Connects by `sockets`.
    #[must_use]
    pub fn new(sockets: Sockets, times: Times, shutdown: Shutdown) -> Self {
        Self { sockets, times, clients: Clients::new(times.rest, shutdown) }
    }

    /// Opens a connection for opaque bytes.
    ///
    /// # Errors
    /// [`Refusal::ConnectFailed`].
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, Refusal> {
        self.sockets
            .connect(to, self.times.connect)
            .await
            .map_err(|error| Refusal::ConnectFailed { address: to, reason: error.to_string() })
    }

    /// Sends a request whose target is in absolute form, as the server wants to hear it.
    ///
    /// # Errors
    /// [`Unanswered`]: [`Refusal::ConnectFailed`], [`Refusal::UpstreamFailed`].
    pub async fn send(
        &self,
        to: SocketAddr,
        speech: Speech,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        *request.version_mut() = match speech {
            Speech::Http10 => Version::HTTP_10,
            Speech::Http11 => Version::HTTP_11,
            Speech::Http2 => Version::HTTP_2,
        };
        let server = (to, Names::of(&request));
        // A kept connection may have been closed by the server just now. What was not sent is sent anew.
        while let Some(client) = self.clients.take(&server, speech) {
            match self.clients.send(&server, client, request).await {
                Ok(answer) => return Ok(answer),
                Err(Failed { unsent: Some(unsent), .. }) => request = unsent,
                Err(Failed { reason, .. }) => return Err(failed(to, reason)),
            }
        }
        // Boxed: what only a new connection needs is no part of each request.
        match Box::pin(self.open(server, speech)).await {
            Ok(client) => {
                let answer = self.clients.send(&server, client, request).await;
                answer.map_err(|unanswered| failed(to, unanswered.reason))
            }
            Err(refusal) => Err(Unanswered { refusal, unsent: Some(Box::new(request)) }),
        }
    }

    /// Closes what rests; ends when nothing is served any more.
    pub async fn run(&self) {
        self.clients.run().await;
    }

    async fn open(&self, server: Server, speech: Speech) -> Result<Client<()>, Refusal> {
        let (to, names) = server;
        let opened = Opened { io: self.connect(to).await?, expires: None, known: (), names };
        let begun = self.clients.begin(&server, speech, opened, pending()).await;
        begun.map_err(|reason| Refusal::UpstreamFailed { address: to, reason })
    }
}

fn failed(address: SocketAddr, reason: String) -> Unanswered {
    Unanswered { refusal: Refusal::UpstreamFailed { address, reason }, unsent: None }
}
