//! Reads a small document from a file or an http(s) URL, bounded in size and time.
//!
//! Where somebody else than the operator of the control plane chose the URL, `guard` says which addresses may be dialled,
//! and each address is checked that is really dialled, after redirects too. Knows not what a document says, nor how
//! certificates are verified (the connector is handed in).

mod guard;
mod redirect;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, net::SocketAddr, path::Path, pin::pin, time::Duration};

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body, Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpStream, lookup_host},
    time,
};
use tokio_rustls::TlsConnector;

pub use guard::{Guard, Plaintext};

/// A file is the operator's own; nothing that we read has more.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Enough for a name that has moved, and for `http` to `https`.
const MAX_REDIRECTS: usize = 3;

/// A document behind a URL.
#[derive(Clone)]
pub struct Origin {
    /// `http` or `https`, with a host.
    pub url: Uri,
    /// Who is trusted to answer an `https` URL.
    pub tls: Option<TlsConnector>,
}

/// How a document may be fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// A longer document is refused.
    pub(crate) bytes: usize,
    /// From looking up the name to the last byte, redirects and all.
    pub(crate) time: Duration,
    /// Who chose the URL.
    pub(crate) chosen: Chosen<'a>,
}

/// Who chose a URL.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chosen<'a> {
    /// The operator of the control plane: any address is dialled, no redirect is followed.
    ByConfiguration,
    /// Whoever may write a resource: a guard says which addresses may be dialled.
    ByResource(&'a Guard),
}

/// Reads a file of bounded size.
pub(crate) async fn file(path: &Path) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(said)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(said)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("{}: more than {MAX_FILE_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// Fetches a document of bounded size in bounded time.
pub(crate) async fn url(origin: &Origin, terms: Terms<'_>) -> Result<Vec<u8>, String> {
    match time::timeout(terms.time, follow(origin, terms)).await {
        Ok(fetched) => fetched.map_err(|error| format!("{}: {error}", origin.url)),
        Err(_) => Err(format!("{}: no answer within {:?}", origin.url, terms.time)),
    }
}

/// What is posted to a URL that the operator has configured.
pub(crate) struct Posted {
    /// Names and values; a value may be a secret, and is never logged.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// JSON.
    pub(crate) body: String,
}

/// What came back, with whatever status.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Posts JSON and reads a reply of bounded size in bounded time; no redirect is followed.
pub(crate) async fn post(
    origin: &Origin,
    posted: Posted,
    (bytes, limit): (usize, Duration),
) -> Result<Reply, String> {
    let exchange = async {
        let request = Request::post(path(origin)).header(header::CONTENT_TYPE, "application/json");
        let request =
            posted.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let request = request
            .header(header::HOST, authority(origin)?)
            .header(header::USER_AGENT, "douane")
            .body(Full::new(Bytes::from(posted.body)))
            .map_err(|error| error.to_string())?;
        let stream = secured(origin, Chosen::ByConfiguration).await?;
        speak(stream, request, async |response| {
            let status = response.status();
            Ok(Reply { status, body: whole(response, bytes).await? })
        })
        .await
    };
    match time::timeout(limit, exchange).await {
        Ok(replied) => replied.map_err(|error| format!("{}: {error}", origin.url)),
        Err(_) => Err(format!("{}: no answer within {limit:?}", origin.url)),
    }
}

async fn follow(origin: &Origin, terms: Terms<'_>) -> Result<Vec<u8>, String> {
    let mut hop = origin.clone();
    for _ in 0..=MAX_REDIRECTS {
        match (fetch(&hop, terms).await?, terms.chosen) {
            (Fetched::Document(bytes), _) => return Ok(bytes),
            (Fetched::Elsewhere(to), Chosen::ByConfiguration) => {
                return Err(format!("it leads to {to:?}, and is not followed"));
            }
            (Fetched::Elsewhere(to), Chosen::ByResource(_)) => hop.url = redirect::follow(&hop.url, &to)?,
        }
    }
    Err(format!("it leads elsewhere more than {MAX_REDIRECTS} times"))
}

enum Fetched {
    Document(Vec<u8>),
    Elsewhere(String),
}

async fn fetch(origin: &Origin, terms: Terms<'_>) -> Result<Fetched, String> {
    let request = Request::get(path(origin))
        .header(header::HOST, authority(origin)?)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, "douane")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = secured(origin, terms.chosen).await?;
    speak(stream, request, async |response| {
        if let Some(to) = redirect::target(&response) {
            return Ok(Fetched::Elsewhere(to));
        }
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        whole(response, terms.bytes).await.map(Fetched::Document)
    })
    .await
}

fn path(origin: &Origin) -> &str {
    origin.url.path_and_query().map_or("/", |path| path.as_str())
}

fn authority(origin: &Origin) -> Result<String, String> {
    let host = origin.url.host().ok_or("the URL has no host")?;
    Ok(match origin.url.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

// A connection to the origin, with TLS where its URL says so.
async fn secured(origin: &Origin, chosen: Chosen<'_>) -> Result<Box<dyn Stream>, String> {
    let host = origin.url.host().ok_or("the URL has no host")?;
    let is_https = origin.url.scheme_str() == Some("https");
    if let (false, Chosen::ByResource(guard)) = (is_https, chosen) {
        guard.admits_plaintext()?;
    }
    let port = origin.url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = dial(bare, port, chosen).await?;
    if !is_https {
        return Ok(Box::new(stream));
    }
    let tls = origin.tls.as_ref().ok_or("an https URL needs a file of trusted certificates")?;
    let name = bare.to_owned().try_into().map_err(|_| "the host is no server name".to_owned())?;
    Ok(Box::new(tls.connect(name, stream).await.map_err(|error| error.to_string())?))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

// Looked up once: what is checked is what is dialled.
async fn dial(host: &str, port: u16, chosen: Chosen<'_>) -> Result<TcpStream, String> {
    let found = lookup_host((host, port)).await.map_err(|error| error.to_string())?;
    let mut last = "its name leads to no address".to_owned();
    for address in found {
        match connect(address, chosen).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr, chosen: Chosen<'_>) -> Result<TcpStream, String> {
    if let Chosen::ByResource(guard) = chosen {
        guard.admits(address.ip())?;
    }
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    if let (Chosen::ByResource(guard), Ok(own)) = (chosen, stream.local_addr()) {
        guard.admits_from(own.ip(), address.ip())?;
    }
    Ok(stream)
}

// One request, and what `read` makes of the answer.
async fn speak<B, T>(
    stream: Box<dyn Stream>,
    request: Request<B>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
) -> Result<T, String>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        read(response).await
    };
    let mut exchange = pin!(exchange);
    // The connection lives as long as the exchange and not a task longer; its end may come with the last byte.
    tokio::select! {
        done = &mut exchange => done,
        _ = connection => exchange.await,
    }
}

async fn whole(response: Response<Incoming>, most: usize) -> Result<Vec<u8>, String> {
    let body = Limited::new(response.into_body(), most).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes().to_vec())
}
