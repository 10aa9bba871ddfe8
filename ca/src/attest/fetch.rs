//! Reads a small document from a file or an http(s) URL, bounded in size and time.
//!
//! Knows not what the document says (`keys`), nor how certificates are verified (the connector comes from `tls`).

use std::{path::Path, pin::pin, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    time,
};
use tokio_rustls::TlsConnector;

/// A key set has a few KiB.
const MAX_BYTES: usize = 1024 * 1024;
/// From looking up the name to the last byte.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// A document behind a URL.
#[derive(Clone)]
pub struct Origin {
    /// `http` or `https`, with a host.
    pub url: Uri,
    /// Who is trusted to answer an `https` URL.
    pub tls: Option<TlsConnector>,
}

/// Reads a file of bounded size.
pub(crate) async fn file(path: &Path) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(said)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(said)?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("{}: more than {MAX_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// Fetches a document of bounded size in bounded time. Redirects are not followed.
pub(crate) async fn url(origin: &Origin) -> Result<Vec<u8>, String> {
    match time::timeout(TIME_LIMIT, fetch(origin)).await {
        Ok(fetched) => fetched.map_err(|error| format!("{}: {error}", origin.url)),
        Err(_) => Err(format!("{}: no answer within {TIME_LIMIT:?}", origin.url)),
    }
}

async fn fetch(origin: &Origin) -> Result<Vec<u8>, String> {
    let host = origin.url.host().ok_or("the URL has no host")?;
    let is_https = origin.url.scheme_str() == Some("https");
    let port = origin.url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
    if !is_https {
        return get(stream, origin, host).await;
    }
    let tls = origin.tls.as_ref().ok_or("an https URL needs a file of trusted certificates")?;
    let name = bare.to_owned().try_into().map_err(|_| "the host is no server name".to_owned())?;
    let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
    get(stream, origin, host).await
}

async fn get<S>(stream: S, origin: &Origin, host: &str) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let authority = match origin.url.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let path = origin.url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes().to_vec())
    };
    let mut exchange = pin!(exchange);
    // The connection lives as long as the exchange and not a task longer; its end may come with the last byte.
    tokio::select! {
        done = &mut exchange => done,
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    // Answers one request with these bytes and hangs up.
    async fn origin(answer: Vec<u8>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            // The reader may have had enough before the end.
            let _ = stream.write_all(&answer).await;
        });
        Origin { url: format!("http://{address}/keys").parse().unwrap(), tls: None }
    }

    #[tokio::test]
    async fn a_document_is_fetched_whole() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".to_vec();
        assert_eq!(url(&origin(answer).await).await, Ok(b"{}".to_vec()));
        let until_the_end = b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec();
        assert_eq!(url(&origin(until_the_end).await).await, Ok(b"{}".to_vec()));
    }

    #[tokio::test]
    async fn redirects_errors_cut_and_endless_documents_are_refused() {
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(endless.len() + MAX_BYTES + 1, b' ');
        for answer in [
            b"HTTP/1.1 302 Found\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec(),
            b"nonsense\r\n\r\n".to_vec(),
            Vec::new(),
            endless,
        ] {
            assert!(url(&origin(answer).await).await.is_err());
        }
    }

    #[tokio::test]
    async fn https_without_trusted_certificates_is_refused() {
        let mut origin = origin(Vec::new()).await;
        origin.url = origin.url.to_string().replace("http:", "https:").parse().unwrap();
        assert!(url(&origin).await.unwrap_err().contains("trusted certificates"));
    }
}
