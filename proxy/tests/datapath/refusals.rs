//! Refusals that need a peer, an application or a limit to misbehave in time: each is provoked, and its label counted.

use std::{cell::Cell, future::pending, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use douane_proto::{
    mesh::{Dialect, Endpoint, External, Port, Protocol},
    snapshot::{Found, Question},
};
use douane_proxy::config::Limits;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::spawn_local,
};

use crate::{
    apps::{client1, client2, echo_stream, fed, full, greet_and_echo, http1, http2, mirror, raw},
    pods::{Pod, Shop, eventually, run, vip},
};

const SOON: Duration = Duration::from_millis(200);

async fn counted(pod: &Pod, label: &str) {
    eventually(label, || pod.refused(label) > 0).await;
}

async fn get(shop: &Shop) -> u16 {
    let mut client = client1(shop.web.connect(vip()).await).await;
    let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
    client.send_request(request).await.unwrap().status().as_u16()
}

/// Both ends of a connection on loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[test]
fn a_request_whose_head_does_not_end_is_refused() {
    run(async {
        let limits = Limits { head: SOON, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
        for beginning in [&b""[..], b"GE", b"GET / HTTP/1.1\r\nHost: ord"] {
            let before = shop.web.refused("head_timeout");
            let mut stream = shop.web.connect(vip()).await;
            assert_eq!(raw(&mut stream, beginning, "").await, "");
            eventually("it is counted", || shop.web.refused("head_timeout") == before + 1).await;
        }
    });
}

#[test]
fn a_connection_may_rest_between_requests_longer_than_a_head_may_take() {
    run(async {
        let limits = Limits { head: SOON, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
        let mut stream = shop.web.connect(vip()).await;
        for _ in 0..2 {
            let told = raw(&mut stream, b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n", "\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 200"), "{told}");
            tokio::time::sleep(SOON * 3).await;
        }
        assert_eq!(shop.web.refused("head_timeout"), 0);
    });
}

#[test]
fn a_peer_whose_handshake_does_not_end_is_refused() {
    run(async {
        let limits = Limits { handshake: SOON, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
        let (mut client, stream) = pair().await;
        client.write_all(&[0x16, 3, 1]).await.unwrap();

        let source = client.local_addr().unwrap();
        shop.orders.inbound.connection(stream, source, shop.pod()).await;

        assert_eq!(raw(&mut client, b"", "").await, "");
        counted(&shop.orders, "handshake_timeout").await;
    });
}

#[test]
fn a_peer_that_does_not_answer_a_handshake_is_given_up_for_another_endpoint() {
    run(async {
        // That of the other must end within it, on a slow machine as well.
        let limits = Limits { handshake: SOON * 10, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
        // Listens, and never says a word.
        let mute = TcpListener::bind("127.0.3.1:0").await.unwrap();
        let address = mute.local_addr().unwrap();
        shop.web.change_service(|service, orders| {
            let mut workload = (**orders).clone();
            workload.addresses = vec![address.ip()];
            let targets = [(80, address.port())].into();
            service.endpoints.push(Endpoint { workload: Arc::new(workload), targets });
        });
        for _ in 0..8 {
            assert_eq!(get(&shop).await, 200);
        }
        shop.web.change_service(|service, _| {
            service.endpoints.remove(0);
        });
        assert_eq!(get(&shop).await, 504);
        counted(&shop.web, "handshake_timeout").await;
    });
}

#[test]
fn a_stream_that_rests_too_long_is_ended_on_both_sides() {
    run(async {
        // Longer than a slow machine needs to begin.
        let limits = Limits { idle: SOON * 10, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Tcp, greet_and_echo).await;
        let mut stream = shop.web.connect(vip()).await;
        assert_eq!(raw(&mut stream, b"", "").await, "hello ");
        eventually("it is counted", || shop.web.refused("idle") + shop.orders.refused("idle") >= 1).await;
    });
}

#[test]
fn streams_and_requests_end_at_their_greatest_age() {
    run(async {
        // Longer than a slow machine needs to begin.
        let limits = Limits { stream_age: SOON * 10, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Tcp, greet_and_echo).await;
        let mut stream = shop.web.connect(vip()).await;
        let told = async {
            // Never idle.
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        told.await;
        eventually("it is counted", || {
            shop.web.refused("stream_age") + shop.orders.refused("stream_age") >= 1
        })
        .await;

        let shop = Shop::open_with(limits, Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let (feed, body) = fed();
        let request = Request::post("http://orders/").body(body).unwrap();
        let mut answer = client.send_request(request).await.unwrap().into_body();
        feed.send(Frame::data(Bytes::from("x"))).unwrap();
        assert!(answer.frame().await.unwrap().is_ok());
        assert!(answer.frame().await.unwrap().is_err(), "it is cut");
        counted(&shop.orders, "stream_age").await;
    });
}

#[test]
fn a_full_sidecar_resets_what_it_cannot_hold() {
    run(async {
        let limits = Limits { connections: 0, ..Limits::default() };
        let shop = Shop::open_with(limits, Protocol::Tcp, greet_and_echo).await;
        let tried = async { TcpStream::connect(shop.orders.port).await?.read_u8().await };
        assert!(tried.await.is_err());
        counted(&shop.orders, "too_many_connections").await;
    });
}

#[test]
fn a_connection_that_nobody_redirected_is_refused() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let tried = async { TcpStream::connect(shop.orders.port).await?.read_u8().await };
        assert!(tried.await.is_err());
        counted(&shop.orders, "not_redirected").await;
    });
}

#[test]
fn nobody_ready_and_only_plaintext_left_are_two_refusals() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.web.change_service(|service, orders| {
            let mut unready = (**orders).clone();
            unready.ready = false;
            service.endpoints[0].workload = Arc::new(unready);
        });
        assert_eq!(get(&shop).await, 503);
        counted(&shop.web, "no_ready_endpoint").await;

        shop.web.change_service(|service, orders| {
            let mut plain = (**orders).clone();
            plain.dialect = Dialect::Plain;
            plain.ready = true;
            let targets = service.endpoints[0].targets.clone();
            service.endpoints.push(Endpoint { workload: Arc::new(plain), targets });
        });
        assert_eq!(get(&shop).await, 503);
        counted(&shop.web, "unmeshed_fallback").await;
    });
}

#[test]
fn a_host_that_leads_to_this_machine_is_no_way_out() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let port = Port { number: 80, protocol: Protocol::Http1, name: "http".to_owned() };
        let entry = External {
            namespace: "shop".to_owned(),
            name: "trap".to_owned(),
            hosts: vec!["localhost".to_owned()],
            addresses: Vec::new(),
            ports: vec![port],
        };
        shop.web.learn(Question::Host("localhost".to_owned()), Found::External(Arc::new(entry)));
        let mut stream = shop.web.connect("203.0.113.9:80".parse().unwrap()).await;
        let told = raw(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 502"), "{told}");
        counted(&shop.web, "unresolvable").await;
    });
}

#[test]
fn an_application_that_breaks_off_is_the_upstreams_fault() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |mut stream: TcpStream| async move {
            let _ = stream.read_u8().await;
        })
        .await;
        assert_eq!(get(&shop).await, 502);
        counted(&shop.orders, "upstream_failed").await;
    });
}

#[test]
fn a_peer_that_dies_before_it_answers_costs_a_safe_request_nothing_and_no_other_is_told_twice() {
    run(async {
        for (method, expected) in [(Method::GET, 200), (Method::POST, 502)] {
            let (reached, told) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
            let (app_reached, app_told) = (Rc::clone(&reached), Rc::clone(&told));
            let shop = Shop::open(Protocol::Http1, move |stream| {
                app_told.set(app_told.get() + 1);
                let dies = (app_told.get() == 1).then(|| Rc::clone(&app_reached));
                async move {
                    let Some(reached) = dies else { return http1(stream, mirror).await };
                    reached.notify_one();
                    pending::<()>().await;
                }
            })
            .await;
            let address = breaks_when(reached, &shop).await;
            shop.web.change_service(|service, orders| {
                let mut workload = (**orders).clone();
                workload.addresses = vec![address.ip()];
                let targets = [(80, address.port())].into();
                service.endpoints[0] = Endpoint { workload: Arc::new(workload), targets };
            });
            let mut client = client1(shop.web.connect(vip()).await).await;
            let request = Request::builder().method(method).uri("/").header("host", "orders");
            let answer = client.send_request(request.body(full("")).unwrap()).await.unwrap();
            assert_eq!(answer.status().as_u16(), expected);
            assert_eq!(told.get(), if expected == 200 { 2 } else { 1 });
        }
    });
}

/// A way to `orders` whose connections break when the application was reached.
async fn breaks_when(reached: Rc<Notify>, shop: &Shop) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.4.1:0").await.unwrap();
    let (address, pod) = (listener.local_addr().unwrap(), shop.pod());
    spawn_local(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let reached = Rc::clone(&reached);
            spawn_local(async move {
                let mut far = TcpStream::connect(pod).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = reached.notified() => near.set_zero_linger().unwrap(),
                }
            });
        }
    });
    address
}

#[test]
fn a_pod_whose_inbound_side_has_ended_refuses_itself() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.orders.shutdown.forced.cancel();
        let mut client = client1(shop.orders.connect(vip()).await).await;
        let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status().as_u16(), 503);
        counted(&shop.orders, "draining").await;
    });
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_stream_is_told_from_an_upstream_that_fails() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let mut stream = shop.web.connect(vip()).await;
        assert_eq!(raw(&mut stream, b"", "hello ").await, "hello ");
        stream.set_zero_linger().unwrap();
        drop(stream);
        counted(&shop.web, "client_gone").await;
        counted(&shop.orders, "client_gone").await;
    });
}

#[test]
fn a_short_body_that_comes_in_two_parts_arrives_whole() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let mut client = shop.web.connect(vip()).await;
        client
            .write_all(
                b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 10\r\nconnection: close\r\n\r\nfirst",
            )
            .await
            .unwrap();
        // Longer than the sidecar holds the first part back.
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.write_all(b"-last").await.unwrap();

        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("first-last"), "{answer}");
    });
}

#[test]
fn a_short_body_that_breaks_off_is_no_request_of_half_of_it() {
    run(async {
        let told = Rc::new(Cell::new(0));
        let counts = Rc::clone(&told);
        let shop = Shop::open(Protocol::Http1, move |stream| {
            counts.set(counts.get() + 1);
            http1(stream, mirror)
        })
        .await;
        let mut client = shop.web.connect(vip()).await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        client.shutdown().await.unwrap();

        counted(&shop.web, "client_gone").await;
        assert_eq!(told.get(), 0);
    });
}
