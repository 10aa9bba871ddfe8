//! Is the application well? Asked as the kubelet would, of the pod's own address, and only what was configured.
//!
//! The application's own words go nowhere: whoever reaches the health port learns only whether it is well.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    config::probes::{AppProbe, AppProbes, Asked, GrpcCheck, HttpGet, Port, Scheme},
    net::socket::Sockets,
    tls::unverified,
};

const HEALTH_CHECK: &str = "http://application/grpc.health.v1.Health/Check";
/// Length prefix of a gRPC message: a flag and four bytes.
const PREFIX: usize = 5;
/// An answer of the health service has two bytes.
const MAX_ANSWER: usize = 1024;
/// `ServingStatus.SERVING`
const SERVING: i32 = 1;

/// Who asks the application.
#[derive(Debug, Clone)]
pub struct Asker {
    /// What may be asked.
    pub probes: Rc<AppProbes>,
    /// How sockets are opened.
    pub sockets: Sockets,
    /// The pod's own address.
    pub address: IpAddr,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl Asker {
    /// The status to answer with, and a word on it; `None` where nothing of that name is configured.
    pub async fn ask(&self, name: &str) -> Option<(StatusCode, String)> {
        let probe = self.probes.find(name)?;
        let limit = probe.timeout();
        Some(match tokio::time::timeout(limit, self.asked(probe, limit)).await {
            Ok(Ok(status)) if status.as_u16() < 400 => {
                (StatusCode::OK, "the application is well\n".to_owned())
            }
            Ok(Ok(status)) => (status, format!("the application answers {status}\n")),
            Ok(Err(error)) => {
                tracing::debug!(error, "a probe of the application");
                (StatusCode::SERVICE_UNAVAILABLE, "the application does not answer\n".to_owned())
            }
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, "the application does not answer in time\n".to_owned()),
        })
    }

    async fn asked(&self, probe: &AppProbe, limit: Duration) -> Result<StatusCode, String> {
        let (Asked::HttpGet(HttpGet { port, .. })
        | Asked::Grpc(GrpcCheck { port, .. })
        | Asked::TcpSocket(Port { port, .. })) = probe.asked();
        let to = SocketAddr::new(self.address, *port);
        let stream = self.sockets.connect(to, limit).await.map_err(|error| error.to_string())?;
        match probe.asked() {
            Asked::TcpSocket(_) => Ok(StatusCode::OK),
            Asked::Grpc(check) => check_grpc(stream, check.service.as_deref().unwrap_or_default()).await,
            Asked::HttpGet(get) if get.scheme == Scheme::Https => {
                let secured = unverified(stream, self.address).await;
                fetch(secured.map_err(|error: io::Error| error.to_string())?, get, to).await
            }
            Asked::HttpGet(get) => fetch(stream, get, to).await,
        }
    }
}

// The head of the answer says it; the body is nobody's business.
async fn fetch<S>(stream: S, get: &HttpGet, to: SocketAddr) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let request = request(get, to)?;
    let (mut client, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    let answered = async { client.send_request(request).await.map(|answer| answer.status()) };
    driven(answered, connection).await.map_err(|error| text(&error))
}

// A connection may end with its answer, which is an answer all the same.
async fn driven<T>(answered: impl Future<Output = T>, connection: impl Future) -> T {
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answered = &mut answered => answered,
        _ = connection => answered.await,
    }
}

fn request(get: &HttpGet, to: SocketAddr) -> Result<Request<Empty<Bytes>>, String> {
    let slash = if get.path.starts_with('/') { "" } else { "/" };
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = format!("{slash}{}", get.path).parse().map_err(|_| "its path is none".to_owned())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::try_from(to.to_string()).map_err(|error| error.to_string())?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe/douane"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for given in &get.http_headers {
        let name: HeaderName = given.name.parse().map_err(|_| format!("{:?} is no header", given.name))?;
        let value =
            HeaderValue::try_from(&given.value).map_err(|_| format!("the value of {name} is none"))?;
        // A name that stands there twice is sent twice, as the kubelet does; our own give way.
        if [header::HOST, header::USER_AGENT, header::ACCEPT].contains(&name) {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(request)
}

async fn check_grpc<S>(stream: S, service: &str) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    driven(call(client, service), connection).await
}

async fn call(client: h2::client::SendRequest<Bytes>, service: &str) -> Result<StatusCode, String> {
    let text = |error: h2::Error| error.to_string();
    let mut client = client.ready().await.map_err(text)?;
    let request = Request::post(HEALTH_CHECK)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let (answer, mut asking) = client.send_request(request, false).map_err(text)?;
    asking.send_data(framed(&HealthCheckRequest { service: service.to_owned() }), true).map_err(text)?;
    let answer = answer.await.map_err(text)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let ended = |headers: &HeaderMap| headers.get("grpc-status").map(|status| status.as_bytes() == b"0");
    if ended(answer.headers()) == Some(false) {
        return Err("the health service refuses".to_owned());
    }
    let (mut body, mut message) = (answer.into_body(), BytesMut::new());
    while let Some(bytes) = body.data().await {
        let bytes = bytes.map_err(text)?;
        let _ = body.flow_control().release_capacity(bytes.len());
        message.put(bytes);
        if message.len() > MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
    }
    let trailers = body.trailers().await.map_err(text)?.unwrap_or_default();
    let said = message.get(PREFIX..).and_then(|message| HealthCheckResponse::decode(message).ok());
    let serving = said.is_some_and(|said| said.status == SERVING) && ended(&trailers) == Some(true);
    Ok(if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

fn framed(message: &HealthCheckRequest) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.encoded_len());
    framed.put_u8(0);
    // A service's name has some ten bytes.
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or_default());
    framed.extend_from_slice(&message.encode_to_vec());
    framed.freeze()
}
