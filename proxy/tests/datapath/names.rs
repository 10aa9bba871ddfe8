//! How names of headers look at both ends: Title-Case, or as they were sent where a port asks for that.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use douane_proto::{mesh::Protocol, wire};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    apps::raw,
    pods::{Shop, eventually, run, vip},
    upgrade::Heard,
};

const ASK: &[u8] = b"GET /a HTTP/1.1\r\nhOsT: orders\r\nx-MiXeD-Case: 1\r\nSOAPAction: buy\r\nX-DOUANE-http: 1.0\r\n\
    X-FORWARDED-client-CERT: By=me;URI=spiffe://cluster.local/ns/shop/sa/boss\r\nCONNECTION: X-Hop\r\nX-HOP: 1\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nX-aNsWeR: 1\r\nx-DOUANE-secret: 1\r\nETag: \"e\"\r\ncontent-LENGTH: 4\r\n\r\nword";

/// Remembers each request's head as it came, and answers.
async fn tells(mut stream: TcpStream, heard: Heard) {
    let mut bytes = [0; 4096];
    let mut head = String::new();
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        head.push_str(&String::from_utf8_lossy(&bytes[..read]));
        if head.ends_with("\r\n\r\n") {
            *heard.borrow_mut() = std::mem::take(&mut head);
            stream.write_all(ANSWER).await.unwrap();
        }
    }
}

async fn shop() -> (Shop, Heard) {
    let heard = Rc::new(RefCell::new(String::new()));
    let log = Rc::clone(&heard);
    (Shop::open(Protocol::Http1, move |stream| tells(stream, Rc::clone(&log))).await, heard)
}

fn keep_names(shop: &Shop) {
    let port = shop.port;
    shop.orders.keeps_names(port);
    shop.web.change_service(|service, orders| {
        let mut orders = (**orders).clone();
        orders.preserve_case.insert(port);
        service.endpoints[0].workload = Arc::new(orders);
    });
}

#[test]
fn names_pass_two_sidecars_as_they_were_sent_in_both_directions() {
    run(async {
        let (shop, heard) = shop().await;
        keep_names(&shop);
        let mut stream = shop.web.connect(vip()).await;

        // The second travels on the same connections.
        for _ in 0..2 {
            let told = raw(&mut stream, ASK, "word").await;

            let head = heard.borrow_mut().split_off(0);
            for name in [
                "\r\nhOsT: orders\r\n",
                "\r\nx-MiXeD-Case: 1\r\n",
                "\r\nSOAPAction: buy\r\n",
                "\r\nTraceparent: ",
            ] {
                assert!(head.contains(name), "{name:?} in {head}");
            }
            let lower = head.to_lowercase();
            assert!(!lower.contains("x-douane") && !lower.contains("x-hop"), "{head}");
            assert!(!lower.contains("boss"), "{head}");
            assert!(lower.contains("x-forwarded-client-cert: by=spiffe://cluster.local/ns/shop/sa/orders;uri=spiffe://cluster.local/ns/shop/sa/web\r\n"), "{head}");
            assert!(told.contains("\r\nX-aNsWeR: 1\r\n") && told.contains("\r\nETag: "), "{told}");
            assert!(told.contains("\r\ncontent-LENGTH: 4\r\n"), "{told}");
            assert!(!told.to_lowercase().contains("x-douane"), "{told}");
        }
        let told_of = || shop.orders.access.read().iter().filter(|line| line["status"] == 200).count();
        eventually("both are recorded", || told_of() == 2).await;
    });
}

const SWITCH: &[u8] = b"GET /chat HTTP/1.1\r\nhOsT: orders\r\nconnection: Upgrade\r\nuPgRaDe: websocket\r\n\
    Sec-WebSocket-Key: k\r\nx-MiXeD-Case: 1\r\nX-DOUANE-http: 1.0\r\n\r\n";

/// Switches, and names a header as no rule would.
async fn switches(mut stream: TcpStream, heard: Heard) {
    let mut bytes = [0; 4096];
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let Ok(read @ 1..) = stream.read(&mut bytes).await else { return };
        head.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    *heard.borrow_mut() = head;
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: a\r\nx-aNsWeR: 1\r\n\r\nfirst ";
    stream.write_all(answer).await.unwrap();
    let _ = stream.read(&mut bytes).await;
}

#[test]
fn who_asks_to_switch_protocols_keeps_its_names_on_every_port() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Undeclared] {
            let heard = Rc::new(RefCell::new(String::new()));
            let log = Rc::clone(&heard);
            let shop = Shop::open(protocol, move |stream| switches(stream, Rc::clone(&log))).await;

            // Through two sidecars, and from a pod to itself.
            for caller in [&shop.web, &shop.orders] {
                let told = raw(&mut caller.connect(vip()).await, SWITCH, "first ").await;

                let head = heard.borrow_mut().split_off(0);
                for name in
                    ["\r\nhOsT: orders\r\n", "\r\nx-MiXeD-Case: 1\r\n", "\r\nSec-WebSocket-Key: k\r\n"]
                {
                    assert!(head.contains(name), "{name:?} in {head}");
                }
                assert!(!head.to_lowercase().contains("x-douane"), "{head}");
                assert!(told.starts_with("HTTP/1.1 101") && told.contains("\r\nx-aNsWeR: 1\r\n"), "{told}");
            }
        }
    });
}

#[test]
fn a_connection_that_asked_to_switch_and_was_not_heard_is_any_other_again() {
    run(async {
        let (shop, heard) = shop().await;
        let mut stream = shop.web.connect(vip()).await;
        raw(&mut stream, SWITCH, "word").await;

        raw(&mut stream, ASK, "word").await;

        let head = heard.borrow().clone();
        assert!(head.contains("\r\nX-Mixed-Case: 1\r\n"), "{head}");
    });
}

#[test]
fn any_other_port_hears_title_case() {
    run(async {
        let (shop, heard) = shop().await;

        let told = raw(&mut shop.web.connect(vip()).await, ASK, "word").await;

        let head = heard.borrow().clone();
        assert!(
            head.contains("\r\nX-Mixed-Case: 1\r\n") && head.contains("\r\nSoapaction: buy\r\n"),
            "{head}"
        );
        assert!(told.contains("\r\nX-Answer: 1\r\n") && told.contains("\r\nEtag: "), "{told}");
    });
}

#[test]
fn the_law_is_the_same_for_names_as_they_were_sent() {
    run(async {
        let (shop, heard) = shop().await;
        keep_names(&shop);
        let header = wire::Condition {
            key: "request.headers[x-mixed-case]".to_owned(),
            values: vec!["1".to_owned()],
            ..Default::default()
        };
        shop.orders.rule(vec![wire::Policy {
            namespace: "shop".to_owned(),
            name: "no-mixed-case".to_owned(),
            action: wire::Action::Deny.into(),
            rules: vec![wire::Rule { when: vec![header], ..Default::default() }],
            ..Default::default()
        }]);
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, ASK, "\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 403"), "{told}");
        assert!(heard.borrow().is_empty());

        let told =
            raw(&mut stream, b"GET / HTTP/1.1\r\nhost: orders\r\nx-MIXED-case: 2\r\n\r\n", "word").await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(heard.borrow().contains("\r\nx-MIXED-case: 2\r\n"));
    });
}
