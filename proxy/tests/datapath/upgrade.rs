//! Connections that become another protocol's: WebSocket and its like, through two sidecars and in the open.

use std::{cell::RefCell, io::ErrorKind, net::SocketAddr, rc::Rc, time::Duration};

use douane_proto::{
    mesh::{Port, Protocol},
    wire,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{
    apps::{http1, mirror, raw},
    pods::{Shop, eventually, run, vip},
};

const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const SWITCHED: &str = "\r\n\r\nfirst ";

/// What an application heard of a request's head.
pub(crate) type Heard = Rc<RefCell<String>>;

/// Reads a head, hears that nothing follows it yet, switches, speaks first, and tells back what comes.
pub(crate) async fn switches(mut stream: TcpStream, heard: Heard) {
    let mut bytes = [0; 4096];
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let Ok(read @ 1..) = stream.read(&mut bytes).await else { return };
        head.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let early = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut bytes)).await;
    if early.is_ok() {
        head.push_str("early!");
    }
    *heard.borrow_mut() = head;
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\nfirst ";
    stream.write_all(answer).await.unwrap();
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// Asks, and hears its word told back.
pub(crate) async fn exchanges(mut stream: TcpStream) {
    let told = raw(&mut stream, ASK, SWITCHED).await;
    assert!(told.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{told}");
    assert_eq!(raw(&mut stream, b"word", "word").await, "word");
}

/// Asks, and talks until both have said all.
async fn talks(mut stream: TcpStream) -> String {
    let told = raw(&mut stream, ASK, SWITCHED).await;
    assert!(told.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{told}");
    stream.write_all(b"word").await.unwrap();
    // The half that stays open carries the echo.
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "word");
    told.to_lowercase()
}

async fn switching(protocol: Protocol) -> (Shop, Heard) {
    let heard = Heard::default();
    let log = Rc::clone(&heard);
    (Shop::open(protocol, move |stream| switches(stream, Rc::clone(&log))).await, heard)
}

fn deny_everything() -> wire::Policy {
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "no".to_owned(),
        action: wire::Action::Deny.into(),
        rules: vec![wire::Rule::default()],
        ..Default::default()
    }
}

#[test]
fn a_websocket_passes_two_sidecars_and_its_request_is_decided_and_cleaned() {
    run(async {
        let (shop, heard) = switching(Protocol::Http1).await;

        let told = talks(shop.web.connect(vip()).await).await;

        assert!(
            told.contains("\r\nupgrade: websocket\r\n") && told.contains("\r\nconnection: upgrade\r\n"),
            "{told}"
        );
        assert!(told.contains("\r\nsec-websocket-accept: a\r\n"), "{told}");
        let head = heard.borrow().to_lowercase();
        assert!(
            head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"),
            "{head}"
        );
        assert!(head.contains("uri=spiffe://cluster.local/ns/shop/sa/web"), "{head}");
        for pod in [&shop.web, &shop.orders] {
            let switched =
                || pod.access.read().iter().any(|line| line["status"] == 101 && line["bytes_in"] == 4);
            eventually("it is recorded with its bytes", switched).await;
        }
    });
}

#[test]
fn a_pod_that_calls_itself_switches_too_and_only_while_the_law_allows_it() {
    run(async {
        let (shop, heard) = switching(Protocol::Http1).await;

        talks(shop.orders.connect(vip()).await).await;
        let head = heard.borrow().to_lowercase();
        assert!(head.contains("uri=spiffe://cluster.local/ns/shop/sa/orders"), "{head}");

        let mut stream = shop.orders.connect(vip()).await;
        raw(&mut stream, ASK, SWITCHED).await;
        shop.orders.rule(vec![deny_everything()]);
        let end = stream.read(&mut [0; 64]).await.map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn what_a_client_says_before_the_101_is_not_passed_on_before_it() {
    run(async {
        let (shop, heard) = switching(Protocol::Http1).await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, &[ASK, b"early"].concat(), "first early").await;

        assert!(told.starts_with("HTTP/1.1 101"), "{told}");
        assert!(!heard.borrow().contains("early"), "{}", heard.borrow());
    });
}

#[test]
fn a_switched_connection_ends_with_a_law_that_forbids_it_and_not_in_order() {
    run(async {
        let (shop, _heard) = switching(Protocol::Http1).await;
        let mut stream = shop.web.connect(vip()).await;
        raw(&mut stream, ASK, SWITCHED).await;

        shop.orders.rule(vec![deny_everything()]);

        let end = stream.read(&mut [0; 64]).await.map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        let again = raw(&mut shop.web.connect(vip()).await, ASK, "\r\n\r\n").await;
        assert!(again.starts_with("HTTP/1.1 403"), "{again}");
    });
}

#[test]
fn any_other_answer_is_an_ordinary_one_and_h2c_is_not_offered() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, ASK, "\r\n\r\n").await.to_lowercase();
        assert!(told.starts_with("http/1.1 200") && told.contains("x-told-upgrade: websocket"), "{told}");

        let h2c = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
        let told = raw(&mut stream, h2c, "\r\n\r\n").await.to_lowercase();
        assert!(told.starts_with("http/1.1 200") && !told.contains("x-told-upgrade"), "{told}");
        assert!(!told.contains("x-told-http2-settings"), "{told}");
    });
}

#[test]
fn a_websocket_to_a_server_without_a_sidecar_passes_in_the_open() {
    run(async {
        let (shop, _heard) = switching(Protocol::Http1).await;
        let listener = TcpListener::bind("127.0.3.1:0").await.unwrap();
        let plain = listener.local_addr().unwrap();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(switches(stream, Heard::default()));
            }
        });
        let at: SocketAddr = "10.96.0.9:80".parse().unwrap();
        let port = Port { number: 80, protocol: Protocol::Http1, name: String::new() };
        shop.web.learns_plain_service(at.ip(), port, &[plain]);

        talks(shop.web.connect(at).await).await;
    });
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Undeclared] {
            let (shop, _heard) = switching(protocol).await;
            let mut stream = shop.web.connect(vip()).await;

            let told = raw(&mut stream, b"GET /chat HTTP/1.1\r\nHost: orders\r\n\r\n", "\r\n\r\n").await;

            assert!(told.starts_with("HTTP/1.1 502"), "{told}");
        }
    });
}
