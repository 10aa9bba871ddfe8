//! What the kubelet asks of the application through the sidecar: only what is configured, and only whether it is well.

use std::{net::Ipv4Addr, rc::Rc, sync::Arc};

use bytes::Bytes;
use douane_proxy::{admin::probe::Asker, config::probes::AppProbes, net::socket::Sockets};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

// Asks one question about a port.
async fn asked(probe: &str) -> (u16, String) {
    let probes: AppProbes = format!(r#"{{"web/readyz":{probe}}}"#).parse().unwrap();
    let asker =
        Asker { probes: Rc::new(probes), sockets: Sockets::default(), address: Ipv4Addr::LOCALHOST.into() };
    assert!(asker.ask("web/livez").await.is_none(), "nothing of that name is configured");
    let (status, said) = asker.ask("web/readyz").await.unwrap();
    (status.as_u16(), said)
}

// Reads a request's head and answers.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, with: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let _ = stream.write_all(with.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(head).unwrap()
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn http(get: &str, with: &str) -> ((u16, String), String) {
    let (listener, port) = listener().await;
    let probe = format!(r#"{{"httpGet":{{"port":{port},{get}}},"timeoutSeconds":20}}"#);
    let served = async { answer(listener.accept().await.unwrap().0, with).await };
    tokio::join!(asked(&probe), served)
}

#[tokio::test]
async fn a_get_keeps_path_query_host_and_headers() {
    let get = r#""path":"/live?full=1","httpHeaders":[{"name":"Host","value":"web.shop"},{"name":"X-A","value":"1"}]"#;

    let ((status, _), head) = http(get, "HTTP/1.1 204 No Content\r\n\r\n").await;

    assert_eq!(status, 200);
    assert!(head.starts_with("GET /live?full=1 HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("host: web.shop\r\n") && head.contains("x-a: 1\r\n"), "{head}");
}

#[tokio::test]
async fn a_redirect_is_well_and_not_followed_and_an_error_is_told_without_its_words() {
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n";
    let ((status, _), _) = http(r#""path":"/""#, redirect).await;
    assert_eq!(status, 200);

    let failure = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 6\r\n\r\nsecret";
    let ((status, said), _) = http(r#""path":"/""#, failure).await;
    assert_eq!(status, 503);
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn nobody_at_the_port_and_nonsense_are_not_well() {
    let (listener, port) = listener().await;
    drop(listener);
    // Perhaps somebody else has the port by now; a probe of another kind than theirs fails as well.
    let (status, _) = asked(&format!(r#"{{"grpc":{{"port":{port}}}}}"#)).await;
    assert!(status >= 500, "{status}");

    let ((status, _), _) = http(r#""path":"/""#, "nonsense\r\n\r\n").await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn an_application_that_says_nothing_is_not_waited_for() {
    let (listener, port) = listener().await;

    let (status, said) = asked(&format!(r#"{{"httpGet":{{"port":{port}}},"timeoutSeconds":1}}"#)).await;

    assert_eq!((status, said.as_str()), (504, "the application does not answer in time\n"));
    drop(listener);
}

#[tokio::test]
async fn a_socket_that_opens_is_well() {
    let (_listener, port) = listener().await;

    let (status, _) = asked(&format!(r#"{{"tcpSocket":{{"port":{port}}},"timeoutSeconds":20}}"#)).await;

    assert_eq!(status, 200);
}

#[tokio::test]
async fn https_is_asked_whatever_the_certificate() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listener().await;
    let served = async {
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await
    };

    let probe =
        format!(r#"{{"httpGet":{{"port":{port},"path":"/x","scheme":"HTTPS"}},"timeoutSeconds":20}}"#);
    let ((status, _), head) = tokio::join!(asked(&probe), served);

    assert_eq!(status, 200);
    assert!(head.starts_with("GET /x "), "{head}");
}

// gRPC's health service that answers with this status, once.
async fn health_service(listener: TcpListener, serving: u8) -> Bytes {
    let stream = listener.accept().await.unwrap().0;
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let serve = async {
        let mut body = request.into_body();
        let asked = body.data().await.unwrap().unwrap();
        let head = Response::builder().status(StatusCode::OK).header("content-type", "application/grpc");
        let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
        send.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        send.send_trailers(trailers).unwrap();
        asked
    };
    let drive = async { while connection.accept().await.is_some() {} };
    let (asked, ()) = tokio::join!(serve, drive);
    asked
}

#[tokio::test]
async fn grpc_is_asked_for_the_service_and_must_be_serving() {
    for (serving, expected) in [(1, 200), (2, 503), (0, 503)] {
        let (listener, port) = listener().await;
        let probe = format!(r#"{{"grpc":{{"port":{port},"service":"shop.Web"}},"timeoutSeconds":20}}"#);

        let ((status, _), question) = tokio::join!(asked(&probe), health_service(listener, serving));

        assert_eq!(status, expected, "{serving}");
        assert_eq!(&question[..], b"\0\0\0\0\x0a\x0a\x08shop.Web");
    }
}
