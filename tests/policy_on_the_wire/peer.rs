//! Who asks: what a case says of a request, as bytes on a socket, and what becomes of it.

use douane_ca::policy::asked::{Asked, Head, Protocol, Verdict};
use douane_proto::id::WorkloadId;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, uri};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_local,
};

use crate::{
    credulous,
    pod::{GREETING, Pod},
};

/// Why there is no verdict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The wire cannot say what the case asks; the engine alone is asked then.
    Unsayable(&'static str),
    /// An answer that no verdict stands for.
    Odd(StatusCode),
}

/// Sends what is asked, and says what became of it.
pub(crate) async fn ask(pod: &Pod, asked: &Asked) -> Result<Verdict, Missed> {
    let asked = &by_proxy(asked)?;
    match (&asked.peer, &asked.sni) {
        (Some(peer), _) if !pod.trusts(peer) => {
            // TLS is the first barrier; what policies would say of such a peer is only the engine's to tell.
            let stream = pod.connect_by_sidecar(peer, asked.source, asked.destination).await;
            match speak(pod, asked, stream).await {
                Ok(Verdict::Allow) => Err(Missed::Odd(StatusCode::OK)),
                _ => Err(Missed::Unsayable("the peer's trust domain is refused by TLS before any policy")),
            }
        }
        (None, Some(_)) => Err(Missed::Unsayable("plaintext has no server name")),
        (None, None) => speak(pod, asked, pod.connect(asked.source, asked.destination).await).await,
        (Some(peer), Some(name)) => match ServerName::try_from(name.clone()) {
            Ok(name) => by_hand(pod, asked, peer, name).await,
            Err(_) => Err(Missed::Unsayable("the server name is none that TLS could send")),
        },
        // A sidecar of ours knows better than to show a certificate there.
        (Some(peer), None) if pod.takes_plaintext_only(asked.destination.port()) => {
            by_hand(pod, asked, peer, asked.destination.ip().into()).await
        }
        (Some(peer), None) => {
            speak(pod, asked, pod.connect_by_sidecar(peer, asked.source, asked.destination).await).await
        }
    }
}

// A client behind a trusted proxy, which says so in its last entry.
fn by_proxy(asked: &Asked) -> Result<Asked, Missed> {
    let mut asked = asked.clone();
    if asked.remote != asked.source {
        let Some(head) = &mut asked.head else {
            return Err(Missed::Unsayable("opaque bytes tell no client address"));
        };
        head.headers.push(("x-forwarded-for".to_owned(), asked.remote.to_string()));
    }
    Ok(asked)
}

async fn speak(pod: &Pod, asked: &Asked, stream: TcpStream) -> Result<Verdict, Missed> {
    match (&asked.head, pod.protocol) {
        (Some(head), Protocol::Http) => http1(stream, head).await,
        (Some(head), _) => http2(stream, head).await,
        (None, _) => Ok(greeted(stream).await),
    }
}

// As bytes, since no client library would send some of these.
async fn http1(mut stream: TcpStream, head: &Head) -> Result<Verdict, Missed> {
    let host = head.host.iter().map(|host| ("Host", host.as_str()));
    let listed = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    if head.method.contains(char::is_control) || head.target.contains(char::is_control) {
        return match raw(&mut stream, &format!("{} {} HTTP/1.1\r\n\r\n", head.method, head.target)).await {
            Ok(Verdict::Allow) => Err(Missed::Odd(StatusCode::OK)),
            _ => Err(Missed::Unsayable("control bytes in a request line are refused as no HTTP at all")),
        };
    }
    let mut text = format!("{} {} HTTP/1.1\r\n", head.method, head.target);
    for (name, value) in host.chain(listed) {
        if name.contains(['\r', '\n', ':']) || value.contains(['\r', '\n']) {
            return Err(Missed::Unsayable("a line break ends a line of HTTP/1"));
        }
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    raw(&mut stream, &text).await
}

async fn raw(stream: &mut TcpStream, text: &str) -> Result<Verdict, Missed> {
    // A refused connection may be reset while this is still being written.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(read @ 1..) => answer.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            _ => return Ok(Verdict::Deny),
        }
    }
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|code| code.parse().ok());
    verdict(status.unwrap_or(StatusCode::BAD_GATEWAY))
}

async fn http2(stream: TcpStream, head: &Head) -> Result<Verdict, Missed> {
    let request = request(head, "http")?;
    let Ok((mut send, connection)) = h2::client::handshake(stream).await else { return Ok(Verdict::Deny) };
    spawn_local(async move {
        let _ = connection.await;
    });
    let Ok((answer, _)) = send.send_request(request, true) else { return Ok(Verdict::Deny) };
    let Ok(answer) = answer.await else { return Ok(Verdict::Deny) };
    verdict_of(&answer)
}

async fn greeted(mut stream: impl AsyncRead + Unpin) -> Verdict {
    let mut heard = [0; GREETING.len()];
    match stream.read_exact(&mut heard).await {
        Ok(_) if heard == *GREETING => Verdict::Allow,
        _ => Verdict::Deny,
    }
}

// A peer that is not ours: with a server name, which no sidecar of ours sends, or where no TLS is expected.
async fn by_hand(
    pod: &Pod,
    asked: &Asked,
    peer: &WorkloadId,
    name: ServerName<'static>,
) -> Result<Verdict, Missed> {
    let socket = pod.connect(asked.source, asked.destination).await;
    let identity = pod.passport(peer);
    let Ok(io) = credulous::connect(socket, &identity, &["douane/1"], name).await else {
        return Ok(Verdict::Deny);
    };
    streams(pod, asked, io).await
}

async fn streams<I>(pod: &Pod, asked: &Asked, io: I) -> Result<Verdict, Missed>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let request = match (&asked.head, pod.protocol) {
        (Some(head), Protocol::Http) => {
            let mut request = request(head, "http")?;
            request.headers_mut().insert("x-douane-http", HeaderValue::from_static("1.1"));
            request
        }
        (Some(head), _) => request(head, "http")?,
        (None, _) => opaque(asked),
    };
    let is_opaque = asked.head.is_none();
    let Ok((send, connection)) = h2::client::handshake(io).await else { return Ok(Verdict::Deny) };
    spawn_local(async move {
        let _ = connection.await;
    });
    let Ok(mut send) = send.ready().await else { return Ok(Verdict::Deny) };
    while is_opaque && !send.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let Ok((answer, _stream)) = send.send_request(request, !is_opaque) else { return Ok(Verdict::Deny) };
    let Ok(answer) = answer.await else { return Ok(Verdict::Deny) };
    if !is_opaque || answer.status() != StatusCode::OK {
        return verdict_of(&answer);
    }
    let mut heard = Vec::new();
    let mut body = answer.into_body();
    while heard.len() < GREETING.len() {
        match body.data().await {
            Some(Ok(chunk)) => heard.extend_from_slice(&chunk),
            _ => return Ok(Verdict::Deny),
        }
    }
    Ok(Verdict::Allow)
}

fn opaque(asked: &Asked) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::builder()
        .scheme("https")
        .authority(asked.destination.to_string())
        .path_and_query("/")
        .build()
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("douane-tcp"));
    request
}

fn request(head: &Head, scheme: &str) -> Result<Request<()>, Missed> {
    const WHY: Missed = Missed::Unsayable("the h2 library refuses to send it");
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme.parse().map_err(|_| WHY)?);
    parts.authority = Some(head.host.as_deref().unwrap_or_default().parse().map_err(|_| WHY)?);
    parts.path_and_query = Some(head.target.parse().map_err(|_| WHY)?);
    let uri = Uri::from_parts(parts).map_err(|_| WHY)?;
    if uri.path_and_query().map(uri::PathAndQuery::as_str) != Some(&*head.target) {
        return Err(WHY);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).map_err(|_| WHY)?;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    for (name, value) in &head.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| WHY)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| WHY)?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

// To a gRPC caller a refusal is a gRPC status (grpc/doc/statuscodes.md).
fn verdict_of<B>(answer: &http::Response<B>) -> Result<Verdict, Missed> {
    match answer.headers().get("grpc-status").map(HeaderValue::as_bytes) {
        None => verdict(answer.status()),
        Some(b"7") => Ok(Verdict::Deny),
        Some(b"16") => Ok(Verdict::Unauthorized),
        Some(b"13") => Ok(Verdict::BadRequest),
        Some(_) => Err(Missed::Odd(answer.status())),
    }
}

fn verdict(status: StatusCode) -> Result<Verdict, Missed> {
    Ok(match status {
        StatusCode::OK => Verdict::Allow,
        StatusCode::UNAUTHORIZED => Verdict::Unauthorized,
        StatusCode::BAD_REQUEST => Verdict::BadRequest,
        StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UPGRADE_REQUIRED => {
            Verdict::Deny
        }
        // A fault of the sidecar or of this test.
        other => return Err(Missed::Odd(other)),
    })
}
