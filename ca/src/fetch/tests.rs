//! One document, whole or not at all.

use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;

const TERMS: Terms<'_> =
    Terms { bytes: 64 * 1024, time: Duration::from_secs(5), chosen: Chosen::ByConfiguration };

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
    assert_eq!(url(&origin(answer).await, TERMS).await, Ok(b"{}".to_vec()));
    let until_the_end = b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec();
    assert_eq!(url(&origin(until_the_end).await, TERMS).await, Ok(b"{}".to_vec()));
}

#[tokio::test]
async fn errors_cut_and_endless_documents_are_refused_and_a_configured_url_leads_nowhere_else() {
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(endless.len() + TERMS.bytes + 1, b' ');
    for answer in [
        b"HTTP/1.1 302 Found\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        Vec::new(),
        endless,
    ] {
        assert!(url(&origin(answer).await, TERMS).await.is_err());
    }
}

#[tokio::test]
async fn https_without_trusted_certificates_is_refused() {
    let mut origin = origin(Vec::new()).await;
    origin.url = origin.url.to_string().replace("http:", "https:").parse().unwrap();
    assert!(url(&origin, TERMS).await.unwrap_err().contains("trusted certificates"));
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn open_guard() -> Guard {
    Guard::new(vec!["127.0.0.1/32".parse().unwrap()], Vec::new(), Plaintext::Allowed)
}

#[tokio::test]
async fn a_redirect_is_followed_to_addresses_that_may_be_dialled_only() {
    let guard = open_guard();
    let terms = Terms { chosen: Chosen::ByResource(&guard), ..TERMS };
    let last = origin(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;
    let first = origin(redirect(&last.url.to_string())).await;
    assert_eq!(url(&first, terms).await, Ok(b"{}".to_vec()));

    for forbidden in
        ["http://127.0.0.2:1/keys", "http://169.254.169.254/latest", "http://[::1]:1/", "ftp://a/"]
    {
        let error = url(&origin(redirect(forbidden)).await, terms).await.unwrap_err();
        assert!(error.contains("never dialled") || error.contains("no URL"), "{error}");
    }
}

#[tokio::test]
async fn more_than_three_redirects_are_not_followed() {
    let guard = open_guard();
    let terms = Terms { chosen: Chosen::ByResource(&guard), ..TERMS };
    let mut next = origin(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;
    for _ in 0..3 {
        next = origin(redirect(&next.url.to_string())).await;
    }
    let fourth = origin(redirect(&next.url.to_string())).await;
    let error = url(&fourth, terms).await.unwrap_err();
    assert!(error.contains("more than 3 times"), "{error}");
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_not_dialled_and_plaintext_needs_leave() {
    let strict = Guard::new(Vec::new(), Vec::new(), Plaintext::Allowed);
    let mut named = origin(Vec::new()).await;
    let port = named.url.port_u16().unwrap();
    named.url = format!("http://localhost:{port}/keys").parse().unwrap();
    let error = url(&named, Terms { chosen: Chosen::ByResource(&strict), ..TERMS }).await.unwrap_err();
    assert!(error.contains("loopback"), "{error}");

    let secure = Guard::new(vec!["127.0.0.1/32".parse().unwrap()], Vec::new(), Plaintext::Refused);
    let error = url(&named, Terms { chosen: Chosen::ByResource(&secure), ..TERMS }).await.unwrap_err();
    assert!(error.contains("http is not secure"), "{error}");
}
