//! One connection to the collector: a socket past our own redirection, TLS where the endpoint asks for it, and HTTP/1.1
//! or gRPC's HTTP/2 on it. Knows not what is sent, nor when it is sent again.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    config::export::{Endpoint, Export, Protocol, Tls},
    net::socket::Sockets,
    tls::web::{WebError, WebTrust},
};

/// Where the collector is and how it is spoken with.
#[derive(Debug)]
pub(super) struct Road {
    sockets: Sockets,
    pub(super) endpoint: Endpoint,
    pub(super) protocol: Protocol,
    trust: Option<WebTrust>,
}

/// Why there is no connection, or no answer on one.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoadError {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] WebError),
    #[error("no connection within {} s", CONNECT.as_secs())]
    Slow,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
}

/// A connection that takes one request at a time; dropped, it is closed.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    /// What drives it.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) body: Bytes,
}

impl Road {
    /// The road to where `export` says.
    pub(super) fn new(export: &Export, sockets: Sockets) -> Result<Self, WebError> {
        let alpn: &'static [u8] = match export.protocol {
            Protocol::Grpc => b"h2",
            Protocol::HttpProtobuf => b"http/1.1",
        };
        let trust = match (export.endpoint.tls, &export.certificate) {
            (Tls::On, Some(file)) => Some(WebTrust::new(file, alpn)?),
            (Tls::On | Tls::Off, _) => None,
        };
        Ok(Self { sockets, endpoint: export.endpoint.clone(), protocol: export.protocol, trust })
    }

    /// A new connection.
    pub(super) async fn open(&self) -> Result<Connection, RoadError> {
        timeout(CONNECT, self.connect()).await.map_err(|_| RoadError::Slow)?
    }

    async fn connect(&self) -> Result<Connection, RoadError> {
        let socket = self.dial().await?;
        match &self.trust {
            None => self.speak(socket).await,
            Some(trust) => self.speak(trust.connect(&self.endpoint.host, socket).await?).await,
        }
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let found = tokio::net::lookup_host((host.as_str(), *port)).await?;
        let addresses: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match self.sockets.connect(address, DIAL).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn speak<S>(&self, io: S) -> Result<Connection, RoadError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (io, mut driver) = (TokioIo::new(io), JoinSet::new());
        let sender = match self.protocol {
            Protocol::HttpProtobuf => {
                let (sender, connection) =
                    http1::Builder::new().max_buf_size(LARGEST_HEAD).handshake(io).await?;
                driver.spawn(async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Grpc => {
                let (sender, connection) =
                    http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).handshake(io).await?;
                driver.spawn(async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, _driver: driver })
    }

    /// Makes a request of what it carries: where it goes is said here.
    pub(super) fn request(&self, headers: HeaderMap, body: Bytes) -> http::Result<Request<Full<Bytes>>> {
        let authority = self.endpoint.authority();
        let uri = match (self.protocol, self.endpoint.tls) {
            (Protocol::HttpProtobuf, _) => self.endpoint.path.clone(),
            (Protocol::Grpc, Tls::Off) => format!("http://{authority}{GRPC_PATH}"),
            (Protocol::Grpc, Tls::On) => format!("https://{authority}{GRPC_PATH}"),
        };
        let mut request = Request::post(uri).body(Full::new(body))?;
        *request.headers_mut() = headers;
        if self.protocol == Protocol::HttpProtobuf {
            request.headers_mut().insert(header::HOST, HeaderValue::from_str(&authority)?);
        }
        Ok(request)
    }
}

impl Connection {
    /// Has the other end left it open, as far as one can know?
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends, and reads the whole answer. The caller bounds it in time, and drops a connection that gave none.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, RoadError> {
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = answer.into_parts();
        // The status says most: an answer that is too long, or that breaks, is one without a body.
        let (trailers, body) = match Limited::new(body, LARGEST_ANSWER).collect().await {
            Ok(collected) => (collected.trailers().cloned(), collected.to_bytes()),
            Err(_) => (None, Bytes::new()),
        };
        Ok(Reply { status: head.status, headers: head.headers, trailers, body })
    }
}

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
// Of one address, and of all with the handshakes.
const DIAL: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);
// Of a name with many.
const MOST_ADDRESSES: usize = 4;
// Bytes. An answer holds a number and a sentence.
const LARGEST_ANSWER: usize = 64 * 1024;
const LARGEST_HEAD: usize = 64 * 1024;
