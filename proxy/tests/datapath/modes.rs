//! Whom a port lets connect: STRICT, and while a mesh is being migrated PERMISSIVE and DISABLE; and what changes while
//! connections run.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use douane_proto::{
    mesh::Protocol,
    mtls::{MtlsMode, MtlsModes},
    wire,
};
use douane_proxy::config::Limits;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    apps::{client1, client2, echo_stream, fed, full, greet_and_echo, http1, http2, mirror, raw},
    pods::{Pod, Shop, eventually, run, vip},
};

/// A ClientHello's beginning and nothing of ours in it.
const APPLICATION_TLS: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: URI=spiffe://a\r\n\r\n";

async fn taking(mode: MtlsMode, protocol: Protocol) -> Shop {
    let shop = match protocol {
        Protocol::Tcp => Shop::open(protocol, greet_and_echo).await,
        Protocol::Http2 => Shop::open(protocol, |stream| http2(stream, mirror)).await,
        _ => Shop::open(protocol, |stream| http1(stream, mirror)).await,
    };
    shop.orders.takes(mode);
    shop
}

/// What the pod says to these bytes of somebody without a sidecar.
async fn told(shop: &Shop, bytes: &[u8], until: &str) -> String {
    raw(&mut shop.orders.knock(shop.pod()).await, bytes, until).await
}

async fn counted(pod: &Pod, label: &str) {
    eventually(label, || pod.refused(label) > 0).await;
}

async fn through_mesh(shop: &Shop) -> String {
    let mut client = client1(shop.web.connect(vip()).await).await;
    let request = Request::get("/a").header("host", "orders").body(full("")).unwrap();
    let answer = client.send_request(request).await.unwrap();
    let identity = answer.headers().get("x-told-x-forwarded-client-cert");
    identity.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn only_web() -> wire::Policy {
    let source = wire::Source {
        principals: vec!["cluster.local/ns/shop/sa/web".to_owned()],
        ..wire::Source::default()
    };
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "only-web".to_owned(),
        rules: vec![wire::Rule { from: vec![source], ..wire::Rule::default() }],
        ..wire::Policy::default()
    }
}

#[test]
fn strict_refuses_plaintext() {
    run(async {
        let shop = taking(MtlsMode::Strict, Protocol::Http1).await;

        assert_eq!(told(&shop, GET, "").await, "");

        counted(&shop.orders, "plaintext").await;
    });
}

#[test]
fn permissive_takes_plaintext_http_without_identity_beside_mutual_tls_with_it() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Undeclared] {
            let shop = taking(MtlsMode::Permissive, protocol).await;

            let plain = told(&shop, GET, "\r\n\r\n").await.to_ascii_lowercase();
            let meshed = through_mesh(&shop).await;

            assert!(plain.starts_with("http/1.1 200"), "{plain}");
            assert!(plain.contains("x-request: get /a http/1.1"), "{plain}");
            assert!(plain.contains("x-told-traceparent: "), "{plain}");
            assert!(!plain.contains("client-cert"), "nobody is who he says he is: {plain}");
            assert!(meshed.ends_with("URI=spiffe://cluster.local/ns/shop/sa/web"), "{meshed}");
            eventually("both are measured", || {
                let metrics = shop.orders.metrics();
                let measured = metrics
                    .lines()
                    .filter(|line| line.starts_with("http_server_request_duration_seconds_count{"));
                let of = |tls: &str| measured.clone().filter(|line| line.contains(tls)).count();
                metrics.contains("douane_plaintext_total{direction=\"inbound\"} 1")
                    && (of("tls=\"none\""), of("tls=\"mtls\"")) == (1, 1)
            })
            .await;
        }
    });
}

#[test]
fn permissive_takes_plaintext_http2() {
    run(async {
        let shop = taking(MtlsMode::Permissive, Protocol::Http2).await;
        let mut client = client2(shop.orders.knock(shop.pod()).await).await;
        let request = Request::post("http://orders/a").body(full("word")).unwrap();

        let answer = client.send_request(request).await.unwrap();

        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "word");
    });
}

#[test]
fn each_plaintext_request_is_decided_and_only_that_one_is_refused() {
    run(async {
        let shop = taking(MtlsMode::Permissive, Protocol::Http1).await;
        let mut client = client1(shop.orders.knock(shop.pod()).await).await;
        for (law, expected) in [(vec![], 200), (vec![only_web()], 403), (vec![], 200)] {
            shop.orders.rule(law);
            client.ready().await.unwrap();
            let request = Request::get("/a").header("host", "orders").body(full("")).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), expected);
            answer.into_body().collect().await.unwrap();
        }
        shop.orders.rule(vec![only_web()]);
        assert!(through_mesh(&shop).await.ends_with("/sa/web"), "a proven peer is allowed");
    });
}

#[test]
fn permissive_takes_opaque_bytes_and_lets_the_application_speak_first() {
    run(async {
        for mode in [MtlsMode::Permissive, MtlsMode::Disable] {
            let shop = taking(mode, Protocol::Tcp).await;
            let mut client = shop.orders.knock(shop.pod()).await;
            assert_eq!(raw(&mut client, b"", "hello ").await, "hello ");
            assert_eq!(raw(&mut client, b"word", "word").await, "word");
            client.shutdown().await.unwrap();
            assert_eq!(raw(&mut client, b"", "").await, "", "an end in order");
        }
        let shop = Shop::open(Protocol::Undeclared, greet_and_echo).await;
        shop.orders.takes(MtlsMode::Permissive);
        assert_eq!(told(&shop, b"", "hello ").await, "hello ");
        assert_eq!(told(&shop, b"EHLO a\r\n", "EHLO a\r\n").await, "hello EHLO a\r\n");
    });
}

#[test]
fn tls_of_an_application_is_opaque_and_has_no_identity() {
    run(async {
        for mode in [MtlsMode::Permissive, MtlsMode::Disable] {
            let shop = taking(mode, Protocol::Tcp).await;
            let mut client = shop.orders.knock(shop.pod()).await;
            client.write_all(APPLICATION_TLS).await.unwrap();
            let mut heard = vec![0; 6 + APPLICATION_TLS.len()];
            client.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard[6..], APPLICATION_TLS);

            shop.orders.rule(vec![only_web()]);

            assert!(client.read_exact(&mut heard[..1]).await.is_err(), "nobody is not web");
            assert_eq!(told(&shop, APPLICATION_TLS, "").await, "");
            counted(&shop.orders, "denied").await;
        }
    });
}

#[test]
fn a_port_declared_http_takes_nothing_else() {
    run(async {
        for mode in [MtlsMode::Permissive, MtlsMode::Disable] {
            let shop = taking(mode, Protocol::Http1).await;
            for bytes in [APPLICATION_TLS, b"\x00\x01\x02", b"EHLO a\r\n"] {
                let before = shop.orders.refused("http_needed");
                assert_eq!(told(&shop, bytes, "").await, "");
                eventually("it is refused", || shop.orders.refused("http_needed") == before + 1).await;
            }
        }
    });
}

#[test]
fn a_plaintext_client_that_says_nothing_to_a_port_declared_http_is_refused_in_time() {
    run(async {
        let limits = Limits {
            head: Duration::from_millis(200),
            handshake: Duration::from_millis(200),
            ..Limits::default()
        };
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.orders.takes(MtlsMode::Permissive);

        for beginning in [&b""[..], b"GE"] {
            let before = shop.orders.refused("head_timeout");
            assert_eq!(told(&shop, beginning, "").await, "");
            eventually("it is counted", || shop.orders.refused("head_timeout") == before + 1).await;
        }
        assert_eq!(told(&shop, &APPLICATION_TLS[..7], "").await, "", "nor is half a handshake waited for");
        counted(&shop.orders, "handshake_timeout").await;
    });
}

#[test]
fn a_doubtful_length_closes_a_plaintext_connection() {
    run(async {
        let shop = taking(MtlsMode::Permissive, Protocol::Http1).await;
        let both =
            b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
                     0\r\n\r\nGET /secret HTTP/1.1\r\nHost: orders\r\n\r\n";

        let told = told(&shop, both, "").await;

        assert!(told.starts_with("HTTP/1.1 400"), "{told}");
        assert!(!told.contains("secret"), "{told}");
    });
}

#[test]
fn disable_is_dialled_in_plaintext_and_refuses_what_is_not() {
    run(async {
        let shop = taking(MtlsMode::Disable, Protocol::Http1).await;
        shop.web.change_service(|service, orders| {
            let mut workload = (**orders).clone();
            workload.mtls = MtlsModes { otherwise: MtlsMode::Disable, ..MtlsModes::default() };
            service.endpoints[0].workload = Arc::new(workload);
        });
        // What redirection would do: hand the plaintext to the inbound side.
        let address = stands_for(&shop).await;
        shop.web.change_service(|service, orders| {
            let mut workload = (**orders).clone();
            workload.addresses = vec![address.ip()];
            service.endpoints[0].workload = Arc::new(workload);
            service.endpoints[0].targets = [(80, address.port())].into();
        });

        assert_eq!(through_mesh(&shop).await, "", "without identity");

        eventually("both sides count it", || {
            shop.web.metrics().contains("douane_plaintext_total{direction=\"outbound\"} 1")
                && shop.orders.metrics().contains("douane_plaintext_total{direction=\"inbound\"} 1")
        })
        .await;
    });
}

/// An address of the pod behind `shop` whose connections its sidecar takes, whatever they begin with.
async fn stands_for(shop: &Shop) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.5.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (inbound, pod) = (Rc::clone(&shop.orders.inbound), shop.pod());
    tokio::task::spawn_local(async move {
        while let Ok((stream, source)) = listener.accept().await {
            let inbound = Rc::clone(&inbound);
            tokio::task::spawn_local(async move { inbound.connection(stream, source, pod).await });
        }
    });
    address
}

async fn ends(stream: &mut TcpStream) {
    let mut rest = [0; 64];
    let end = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    // It ends at once; any limit that would end it otherwise is far longer.
    tokio::time::timeout(Duration::from_secs(60), end).await.expect("it ends");
}

#[test]
fn a_port_that_becomes_strict_ends_plaintext_and_keeps_mutual_tls() {
    run(async {
        let shop = taking(MtlsMode::Permissive, Protocol::Tcp).await;
        let mut plain = shop.orders.knock(shop.pod()).await;
        let mut meshed = shop.web.connect(vip()).await;
        assert_eq!(raw(&mut plain, b"", "hello ").await, "hello ");
        assert_eq!(raw(&mut meshed, b"", "hello ").await, "hello ");

        shop.orders.takes(MtlsMode::Strict);

        ends(&mut plain).await;
        counted(&shop.orders, "mode_changed").await;
        assert_eq!(raw(&mut meshed, b"word", "word").await, "word");
    });
}

#[test]
fn a_port_that_becomes_disabled_ends_mutual_tls_and_keeps_plaintext() {
    run(async {
        let shop = taking(MtlsMode::Permissive, Protocol::Tcp).await;
        let mut plain = shop.orders.knock(shop.pod()).await;
        let mut meshed = shop.web.connect(vip()).await;
        assert_eq!(raw(&mut plain, b"", "hello ").await, "hello ");
        assert_eq!(raw(&mut meshed, b"", "hello ").await, "hello ");

        shop.orders.takes(MtlsMode::Disable);

        ends(&mut meshed).await;
        counted(&shop.orders, "mode_changed").await;
        assert_eq!(raw(&mut plain, b"word", "word").await, "word");
    });
}

#[test]
fn plaintext_that_had_not_spoken_when_a_port_became_strict_reaches_nobody() {
    run(async {
        let heard = Rc::new(Cell::new(0));
        let hearing = Rc::clone(&heard);
        let shop = Shop::open(Protocol::Http1, move |stream| {
            let heard = Rc::clone(&hearing);
            http1(stream, move |request| {
                heard.set(heard.get() + 1);
                mirror(request)
            })
        })
        .await;
        for _ in 0..16 {
            shop.orders.takes(MtlsMode::Permissive);
            // Its connection to the application stays open for the next request.
            assert!(told(&shop, GET, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
            let mut silent = shop.orders.knock(shop.pod()).await;
            tokio::task::yield_now().await;
            let before = heard.get();

            shop.orders.takes(MtlsMode::Strict);
            let _ = silent.write_all(GET).await;
            ends(&mut silent).await;

            assert_eq!(heard.get(), before);
        }
        counted(&shop.orders, "mode_changed").await;
    });
}

#[test]
fn a_port_that_becomes_strict_ends_the_requests_in_flight_of_plaintext_http2() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        shop.orders.takes(MtlsMode::Permissive);
        let mut client = client2(shop.orders.knock(shop.pod()).await).await;
        let (feed, body) = fed();
        let request = Request::post("http://orders/a").body(body).unwrap();
        let mut answer = client.send_request(request).await.unwrap().into_body();
        feed.send(Frame::data("a".into())).unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "a");

        shop.orders.takes(MtlsMode::Strict);

        assert!(answer.frame().await.unwrap().is_err(), "it is cut");
        eventually("no request is left", || {
            shop.orders.metrics().contains("douane_active{direction=\"inbound\"} 0")
        })
        .await;
    });
}
