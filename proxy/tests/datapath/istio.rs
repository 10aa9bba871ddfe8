//! A peer with a good certificate that speaks Istio's dialect and obeys nobody: what it says on the handshake names how bytes
//! are framed, and never gets it past the law.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use douane_proto::{
    mesh::{Dialect, Protocol, Workload},
    wire,
};
use http::{Method, Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_local,
};
use tokio_rustls::client::TlsStream;

use crate::{
    apps::{full, greet_and_echo, http1, http2, mirror, raw},
    credulous,
    pods::{Shop, run, vip},
    stranger::{LONG, SHORT},
};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n";
const CALLER: &str = "URI=spiffe://cluster.local/ns/shop/sa/caller";

/// A connection of a workload called `caller`, whose certificate ends after `life`, that offers `names`.
async fn offering(shop: &Shop, names: &[&str], life: Duration) -> io::Result<TlsStream<TcpStream>> {
    let identity = shop.ca.passing_identity("caller", 1, life);
    let name = ServerName::try_from("orders").unwrap();
    credulous::connect(shop.orders.knock(shop.pod()).await, &identity, names, name).await
}

async fn speaking(shop: &Shop, name: &str) -> TlsStream<TcpStream> {
    offering(shop, &[name], LONG).await.unwrap()
}

/// Says it, and hears what comes until `until`, or the end.
async fn say(io: &mut TlsStream<TcpStream>, bytes: &[u8], until: &str) -> String {
    let mut told = Vec::new();
    let mut chunk = [0; 4096];
    if io.write_all(bytes).await.is_ok() {
        while let Ok(read @ 1..) = io.read(&mut chunk).await {
            told.extend_from_slice(&chunk[..read]);
            if String::from_utf8_lossy(&told).contains(until) {
                break;
            }
        }
    }
    String::from_utf8_lossy(&told).to_lowercase()
}

async fn h2_ask(io: TlsStream<TcpStream>, request: Request<()>) -> Result<Response<()>, h2::Error> {
    let (send, connection) = h2::client::handshake(io).await?;
    spawn_local(async move {
        let _ = connection.await;
    });
    let mut send: h2::client::SendRequest<Bytes> = send.ready().await?;
    let (answer, _stream) = send.send_request(request, true)?;
    Ok(answer.await?.map(drop))
}

fn policy(action: wire::Action, rule: wire::Rule) -> wire::Policy {
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "law".to_owned(),
        action: action.into(),
        rules: vec![rule],
        ..Default::default()
    }
}

#[test]
fn http_on_a_port_declared_tcp_is_refused_in_every_version() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, |stream| http1(stream, mirror)).await;

        let told = say(&mut speaking(&shop, "istio-http/1.1").await, GET, "\r\n\r\n").await;
        assert!(told.starts_with("http/1.1 403"), "{told}");
        let request = Request::get("http://orders/a").body(()).unwrap();
        let answer = h2_ask(speaking(&shop, "istio-h2").await, request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);

        shop.orders.has_refused("opaque_needed", 2).await;
    });
}

#[test]
fn bytes_on_a_port_declared_http_are_refused_under_every_name() {
    run(async {
        let shop = Shop::open(Protocol::Http1, greet_and_echo).await;

        for name in ["istio", "istio-http/1.1", "istio-http/1.0", "http/1.1"] {
            let told = say(&mut speaking(&shop, name).await, b"EHLO a\r\n\r\n", "hello ").await;
            assert!(told.is_empty() || told.starts_with("http/1.1 400"), "{name}: {told}");
        }
        // Of bytes under the name for bytes.
        shop.orders.has_refused("http_needed", 1).await;
    });
}

#[test]
fn a_law_that_needs_http_refuses_bytes_and_decides_requests_whatever_the_name() {
    run(async {
        let shop = Shop::open(Protocol::Undeclared, |stream| http1(stream, mirror)).await;
        let operation = wire::Operation { paths: vec!["/a".to_owned()], ..Default::default() };
        let rule = wire::Rule { to: vec![operation], ..Default::default() };
        shop.orders.rule(vec![policy(wire::Action::Allow, rule)]);

        assert_eq!(say(&mut speaking(&shop, "istio").await, b"EHLO a\r\n", "\n").await, "");
        for name in ["istio", "istio-http/1.1"] {
            let mut io = speaking(&shop, name).await;
            let told = say(&mut io, GET, "\r\n\r\n").await;
            assert!(told.starts_with("http/1.1 200"), "{name}: {told}");
            let told = say(&mut io, b"GET /b HTTP/1.1\r\nHost: orders\r\n\r\n", "\r\n\r\n").await;
            assert!(told.starts_with("http/1.1 403"), "{name}: {told}");
        }
        shop.orders.has_refused("http_needed", 1).await;
    });
}

#[test]
fn a_caller_that_the_law_denies_gets_403_and_its_connection_goes_on() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let source = wire::Source {
            principals: vec!["cluster.local/ns/shop/sa/caller".to_owned()],
            ..Default::default()
        };
        let rule = wire::Rule { from: vec![source], ..Default::default() };
        shop.orders.rule(vec![policy(wire::Action::Deny, rule)]);
        let mut io = speaking(&shop, "istio-http/1.1").await;

        assert!(say(&mut io, GET, "\r\n\r\n").await.starts_with("http/1.1 403"));
        shop.orders.rule(Vec::new());
        assert!(say(&mut io, GET, "\r\n\r\n").await.starts_with("http/1.1 200"));
    });
}

#[test]
fn words_of_our_own_dialect_and_a_borrowed_identity_count_for_nothing_over_http1() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let spoof = b"GET /a HTTP/1.1\r\nHost: orders\r\nX-Douane-Http: 1.0\r\nX-FORWARDED-Client-Cert: URI=spiffe://a\r\n\r\n";

        let told = say(&mut speaking(&shop, "istio-http/1.1").await, spoof, "\r\n\r\n").await;

        assert!(told.contains("x-request: get /a http/1.1\r\n"), "{told}");
        assert!(told.contains(&format!("{}\r\n", CALLER.to_lowercase())), "{told}");
        assert!(!told.contains("x-told-x-douane") && !told.contains("spiffe://a\r\n"), "{told}");
    });
}

#[test]
fn neither_do_they_over_http2_and_connect_leads_nowhere() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, mirror)).await;
        let spoof = Request::get("http://orders/a")
            .header("x-douane-http", "1.1")
            .header("x-forwarded-client-cert", "URI=spiffe://a");

        let answer = h2_ask(speaking(&shop, "istio-h2").await, spoof.body(()).unwrap()).await.unwrap();

        let told = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(told("x-request").unwrap().ends_with("HTTP/2.0"));
        assert!(told("x-told-x-forwarded-client-cert").unwrap().ends_with(CALLER));
        assert_eq!(told("x-told-x-douane-http"), None);

        for protocol in [None, Some("douane-tcp"), Some("websocket")] {
            let target = format!("http://{}/", shop.pod());
            let mut connect = Request::builder().method(Method::CONNECT).uri(target).body(()).unwrap();
            match protocol {
                Some(name) => drop(connect.extensions_mut().insert(h2::ext::Protocol::from_static(name))),
                None => *connect.uri_mut() = shop.pod().to_string().parse().unwrap(),
            }
            let answer = h2_ask(speaking(&shop, "istio-h2").await, connect).await;
            assert!(
                answer.is_err() || answer.is_ok_and(|one| one.status().is_client_error()),
                "{protocol:?}"
            );
        }
    });
}

#[test]
fn a_peer_labelled_istios_that_answers_our_name_is_spoken_to_as_ours() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.web.change_service(|service, orders| {
            let labelled = Workload { dialect: Dialect::Istio, ..(**orders).clone() };
            service.endpoints[0].workload = Arc::new(labelled);
        });
        let mut stream = shop.web.connect(vip()).await;

        for _ in 0..2 {
            let told = raw(&mut stream, GET, "\r\n\r\n").await.to_lowercase();
            assert!(
                told.starts_with("http/1.1 200") && told.contains("x-request: get /a http/1.1"),
                "{told}"
            );
            assert!(told.contains("uri=spiffe://cluster.local/ns/shop/sa/web\r\n"), "{told}");
            assert!(!told.contains("x-told-x-douane"), "{told}");
        }
    });
}

#[test]
fn a_preamble_that_nobody_speaks_is_refused_and_a_caller_that_names_nothing_is_heard() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;

        assert!(offering(&shop, &["istio-peer-exchange"], LONG).await.is_err());
        let mut unnamed = offering(&shop, &[], LONG).await.unwrap();
        let told = say(&mut unnamed, GET, "\r\n\r\n").await;

        assert!(told.starts_with("http/1.1 200"), "{told}");
        assert!(told.contains(&format!("{}\r\n", CALLER.to_lowercase())), "{told}");
    });
}

#[test]
fn an_expired_certificate_gets_no_further_request() {
    run(async {
        let shop =
            Shop::open(Protocol::Http1, |stream| http1(stream, |_| async { Response::new(full("")) })).await;
        let mut io = offering(&shop, &["istio-http/1.1"], SHORT).await.unwrap();
        assert!(say(&mut io, GET, "\r\n\r\n").await.starts_with("http/1.1 200"));

        // Clocks of certificates count whole seconds.
        let refused = async {
            while say(&mut io, GET, "\r\n\r\n").await.starts_with("http/1.1 200") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        refused.await;
    });
}
