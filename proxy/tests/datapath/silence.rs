//! A port that nobody declared, and a client that says nothing, or little, for a while: whoever speaks first decides, and a
//! request is treated as one however late it comes.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use douane_proto::{
    mesh::{External, Port, Protocol},
    mtls::MtlsMode,
    snapshot::{Found, Question},
    wire,
};
use douane_proxy::{config::Limits, net::detect::SILENCE};
use h2::ext;
use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    apps::{client2, full, greet_and_echo, http1, http2, mirror, raw},
    pods::{Shop, eventually, run, vip},
    stranger::{LONG, open, stranger},
};

// Longer than either side waits for a client to speak.
const LATE: Duration = Duration::from_millis(300);
const SPOOF: &[u8] = b"GET /a HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: URI=spiffe://a\r\n\r\n";

fn patient_for(head: Duration) -> Limits {
    Limits { head, ..Limits::default() }
}

async fn web_shop() -> Shop {
    Shop::open(Protocol::Undeclared, |stream| http1(stream, mirror)).await
}

/// Both sidecars treated it as a request: the spoofed header is gone, the identity stands in its place.
fn assert_cleaned(told: &str) {
    let told = told.to_ascii_lowercase();
    assert!(told.starts_with("http/1.1 200"), "{told}");
    assert!(told.contains("client-cert: by=spiffe://"), "{told}");
    assert!(!told.contains("spiffe://a\r\n"), "{told}");
}

fn paths_only() -> wire::Policy {
    let operation = wire::Operation { paths: vec!["/a".to_owned()], ..wire::Operation::default() };
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "paths".to_owned(),
        rules: vec![wire::Rule { to: vec![operation], ..wire::Rule::default() }],
        ..wire::Policy::default()
    }
}

async fn slowly(stream: &mut TcpStream, bytes: &[u8], pieces: usize) {
    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

fn opaque_to(at: SocketAddr) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri(format!("http://{at}/"));
    request.extension(ext::Protocol::from_static("douane-tcp")).body(()).unwrap()
}

#[test]
fn a_request_that_comes_late_is_a_request() {
    run(async {
        let shop = web_shop().await;
        let mut stream = shop.web.connect(vip()).await;
        tokio::time::sleep(LATE).await;

        assert_cleaned(&raw(&mut stream, SPOOF, "\r\n\r\n").await);

        for pod in [&shop.web, &shop.orders] {
            eventually("it is told", || pod.access.read().len() == 1).await;
            assert_eq!(pod.access.read()[0]["protocol"], "http/1.1");
        }
    });
}

#[test]
fn a_request_that_comes_in_pieces_is_a_request_however_long_its_line() {
    run(async {
        let shop = web_shop().await;
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(30_000));
        let long =
            [long.as_bytes(), &SPOOF[SPOOF.iter().position(|byte| *byte == b'\n').unwrap() + 1..]].concat();
        for (request, pieces) in [(SPOOF, 6), (&long, 4)] {
            let mut stream = shop.web.connect(vip()).await;
            slowly(&mut stream, request, pieces).await;

            assert_cleaned(&raw(&mut stream, b"", "\r\n\r\n").await);
        }
    });
}

#[test]
fn http2_that_comes_late_is_http2_though_its_server_has_sent_settings() {
    run(async {
        let shop = Shop::open(Protocol::Undeclared, |stream| http2(stream, mirror)).await;
        let stream = shop.web.connect(vip()).await;
        tokio::time::sleep(LATE).await;
        let mut client = client2(stream).await;

        let request = Request::get("http://orders/a").header("x-forwarded-client-cert", "URI=spiffe://a");
        let answer = client.send_request(request.body(full("")).unwrap()).await.unwrap();

        let told = answer.headers()["x-told-x-forwarded-client-cert"].to_str().unwrap();
        assert!(told.ends_with("/sa/web"), "{told}");
    });
}

#[test]
fn a_peer_cannot_hide_a_request_in_an_opaque_stream_by_waiting_or_cutting() {
    run(async {
        let shop = web_shop().await;
        let peer = stranger(&shop, LONG).await;
        for cuts in [vec![SPOOF.len()], vec![2, SPOOF.len()], vec![1, 20, 50, SPOOF.len()]] {
            let (answer, mut stream) = open(&peer, opaque_to(shop.pod())).await;
            let mut from = 0;
            for to in cuts {
                tokio::time::sleep(Duration::from_millis(150)).await;
                stream.send_data(Bytes::from_static(&SPOOF[from..to]), false).unwrap();
                from = to;
            }

            let mut told = answer.await.unwrap().into_body();

            let told = String::from_utf8_lossy(&told.data().await.unwrap().unwrap()).into_owned();
            assert_cleaned(&told);
            assert!(told.contains("/sa/stranger"), "{told}");
        }
    });
}

#[test]
fn a_plaintext_peer_cannot_hide_a_request_by_waiting_or_cutting() {
    run(async {
        for mode in [MtlsMode::Permissive, MtlsMode::Disable] {
            let shop = web_shop().await;
            shop.orders.takes(mode);
            for pieces in [1, 5] {
                let mut stream = shop.orders.knock(shop.pod()).await;
                tokio::time::sleep(LATE).await;
                slowly(&mut stream, SPOOF, pieces).await;

                let told = raw(&mut stream, b"", "\r\n\r\n").await.to_ascii_lowercase();

                assert!(told.starts_with("http/1.1 200"), "{told}");
                assert!(!told.contains("client-cert"), "{told}");
            }
        }
    });
}

#[test]
fn where_the_server_has_spoken_first_everything_is_bytes() {
    run(async {
        for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
            let shop = Shop::open(Protocol::Undeclared, greet_and_echo).await;
            shop.orders.takes(mode);
            let mut stream = match mode {
                MtlsMode::Strict => shop.web.connect(vip()).await,
                _ => shop.orders.knock(shop.pod()).await,
            };
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).await.unwrap();

            let told = raw(&mut stream, SPOOF, "\r\n\r\n").await;

            assert_eq!((&greeting, told.as_bytes()), (b"hello ", SPOOF));
        }
    });
}

#[test]
fn a_beginning_that_never_ends_is_refused_and_never_forwarded() {
    run(async {
        let shop = Shop::open_with(patient_for(LATE), Protocol::Undeclared, greet_and_echo).await;
        let mut stream = shop.web.connect(vip()).await;

        assert_eq!(raw(&mut stream, b"GET /hal", "").await, "");

        eventually("it is counted", || shop.web.refused("head_timeout") == 1).await;
    });
}

#[test]
fn where_the_law_needs_http_a_silent_client_is_closed_in_time_and_a_late_request_is_decided() {
    run(async {
        let limits = patient_for(LATE * 10);
        let shop = Shop::open_with(limits, Protocol::Undeclared, |stream| http1(stream, mirror)).await;
        shop.orders.rule(vec![paths_only()]);

        // The first stream is refused, and that is remembered: of the second client the receiver hears nothing.
        for _ in 0..2 {
            assert_eq!(raw(&mut shop.web.connect(vip()).await, b"", "").await, "");
        }
        let mut late = shop.web.connect(vip()).await;
        tokio::time::sleep(LATE).await;
        assert_cleaned(&raw(&mut late, SPOOF, "\r\n\r\n").await);
        let told = raw(&mut shop.web.connect(vip()).await, b"EHLO a\r\n", "").await;

        assert_eq!(told, "");
        eventually("bytes are refused", || shop.orders.refused("http_needed") == 2).await;
        shop.web.has_refused("head_timeout", 2).await;
    });
}

#[test]
fn whom_the_law_allows_requests_alone_may_send_them_late() {
    run(async {
        let shop =
            Shop::open_with(patient_for(LATE * 10), Protocol::Undeclared, |stream| http1(stream, mirror))
                .await;
        let other = wire::Source {
            principals: vec!["cluster.local/ns/shop/sa/ledger".to_owned()],
            ..wire::Source::default()
        };
        let bytes_of_another = wire::Policy {
            name: "bytes".to_owned(),
            rules: vec![wire::Rule { from: vec![other], ..wire::Rule::default() }],
            ..paths_only()
        };
        shop.orders.rule(vec![paths_only(), bytes_of_another]);

        let mut late = shop.web.connect(vip()).await;
        tokio::time::sleep(LATE).await;
        assert_cleaned(&raw(&mut late, SPOOF, "\r\n\r\n").await);
        assert_eq!(shop.orders.refused("denied"), 0);
        assert_eq!(raw(&mut shop.web.connect(vip()).await, b"", "").await, "");

        eventually("silence is denied in the end", || shop.orders.refused("denied") == 1).await;
    });
}

#[test]
fn a_sidecar_that_is_late_to_begin_its_handshake_is_served_with_its_identity() {
    run(async {
        let shop = web_shop().await;
        shop.orders.takes(MtlsMode::Permissive);
        let socket = shop.orders.knock(shop.pod()).await;
        tokio::time::sleep(LATE).await;
        let peer = crate::stranger::shake_hands(&shop, socket, LONG).await;
        let request = Request::get("http://orders/a").header("x-douane-http", "1.1").body(()).unwrap();
        let (answer, mut stream) = open(&peer, request).await;
        stream.send_data(Bytes::new(), true).unwrap();

        let answer = answer.await.unwrap();

        assert_eq!(answer.status(), StatusCode::OK);
        assert!(
            answer.headers()["x-told-x-forwarded-client-cert"].to_str().unwrap().ends_with("/sa/stranger")
        );
    });
}

async fn greeted_after(shop: &Shop) -> Duration {
    let began = Instant::now();
    shop.web.connect(vip()).await.read_exact(&mut [0; 6]).await.unwrap();
    began.elapsed()
}

#[test]
fn where_it_was_learned_that_a_server_speaks_first_it_is_heard_at_once_and_requests_stay_requests() {
    run(async {
        let shop = Shop::open(Protocol::Undeclared, greet_and_echo).await;
        assert!(greeted_after(&shop).await >= SILENCE);

        shop.web.change_service(|service, orders| {
            let mut heard = (**orders).clone();
            heard.learned.insert(shop.port, Protocol::Tcp);
            service.endpoints[0].workload = heard.into();
        });

        let mut fastest = Duration::MAX;
        // One of them meets a machine that has nothing else to do.
        for _ in 0..100 {
            fastest = fastest.min(greeted_after(&shop).await);
            if fastest < SILENCE {
                break;
            }
        }
        assert!(fastest < SILENCE, "{fastest:?}");
        let told = raw(&mut shop.web.connect(vip()).await, SPOOF, "\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 502"), "this server speaks none: {told}");
    });
}

/// A ClientHello for `name`.
fn client_hello(name: &'static str) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name).unwrap();
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_server_name_of_an_applications_own_tls_is_in_the_record() {
    run(async {
        for protocol in [Protocol::Tcp, Protocol::Undeclared] {
            let shop = Shop::open(protocol, greet_and_echo).await;
            let hello = client_hello("vault.example");
            let mut stream = shop.web.connect(vip()).await;
            stream.write_all(&hello).await.unwrap();
            let mut told = vec![0; 6 + hello.len()];
            stream.read_exact(&mut told).await.unwrap();
            assert_eq!(told[6..], hello);
            drop(stream);

            eventually("it is told", || shop.web.access.read().len() == 1).await;
            assert_eq!(shop.web.access.read()[0]["sni"], "vault.example", "{protocol:?}");
        }
    });
}

#[test]
fn a_server_name_selects_an_entry_without_addresses_and_no_other() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let entry = External {
            namespace: "shop".to_owned(),
            name: "vault".to_owned(),
            hosts: vec!["localhost".to_owned()],
            addresses: Vec::new(),
            ports: vec![Port { number: 443, protocol: Protocol::Tcp, name: String::new() }],
        };
        shop.web.learn(Question::Host("localhost".to_owned()), Found::External(entry.into()));
        let nowhere: SocketAddr = "203.0.113.9:443".parse().unwrap();

        for (name, label) in [("localhost", "unresolvable"), ("nobody.example", "unknown_destination")] {
            let told = raw(&mut shop.web.connect(nowhere).await, &client_hello(name), "").await;

            assert_eq!(told, "");
            // The name has selected its entry, but leads to this machine; the other has selected nothing.
            eventually(label, || shop.web.refused(label) == 1).await;
        }
    });
}

#[test]
fn who_was_silent_before_his_request_holds_no_place_of_a_stream_besides() {
    run(async {
        let limits = Limits { connections_of_one: 2, ..Limits::default() };
        let applications = Rc::new(Cell::new(0));
        let count = Rc::clone(&applications);
        let shop = Shop::open_with(limits, Protocol::Undeclared, move |stream| {
            count.set(count.get() + 1);
            http1(stream, mirror)
        })
        .await;
        let peer = stranger(&shop, LONG).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            let before = applications.get();
            let (answer, mut stream) = open(&peer, opaque_to(shop.pod())).await;
            eventually("the application is connected", || {
                applications.get() > before || shop.orders.refused("share_exceeded") > 0
            })
            .await;
            stream.send_data(Bytes::from_static(SPOOF), false).unwrap();

            let mut told = answer.await.unwrap().into_body();

            assert_cleaned(&String::from_utf8_lossy(&told.data().await.unwrap().unwrap()));
            held.push((told, stream));
        }
        // Nothing is in progress any more.
        eventually("no stream counts", || {
            shop.orders.metrics().contains("douane_active{direction=\"inbound\"} 0")
        })
        .await;
    });
}

#[test]
fn bytes_whose_first_frame_tells_nothing_yet_are_heard_out() {
    run(async {
        let shop = Shop::open(Protocol::Undeclared, greet_and_echo).await;
        let peer = stranger(&shop, LONG).await;
        let (answer, mut stream) = open(&peer, opaque_to(shop.pod())).await;
        // With the stream itself.
        stream.send_data(Bytes::from_static(b"P"), false).unwrap();
        tokio::time::sleep(LATE).await;
        stream.send_data(Bytes::from_static(b"ING\r\n"), false).unwrap();

        assert_eq!(answer.await.unwrap().status(), 200);
    });
}
