//! What the law does to requests and streams: refusals, and changes while they run.

use bytes::Bytes;
use douane_proto::{mesh::Protocol, wire};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    apps::{client1, client2, echo_stream, fed, full, greet_and_echo, http1, http2, mirror},
    pods::{Shop, eventually, run, vip},
};

fn deny(operation: wire::Operation) -> wire::Policy {
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "no".to_owned(),
        action: wire::Action::Deny.into(),
        rules: vec![wire::Rule { to: vec![operation], ..wire::Rule::default() }],
        ..Default::default()
    }
}

fn deny_path(path: &str) -> wire::Policy {
    deny(wire::Operation { paths: vec![path.to_owned()], ..wire::Operation::default() })
}

#[test]
fn a_denied_request_gets_403_and_its_connection_goes_on() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.orders.rule(vec![deny_path("/secret")]);
        let mut client = client1(shop.web.connect(vip()).await).await;

        for (path, expected) in [("/a", 200), ("/x/../secret", 403), ("/%73ecret", 403), ("/b", 200)] {
            client.ready().await.unwrap();
            let request = Request::get(path).header("host", "orders").body(full("")).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), expected, "{path}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty(), "a stranger is told nothing");
        }
    });
}

#[test]
fn a_denied_grpc_call_gets_a_grpc_status() {
    run(async {
        let shop = Shop::open(Protocol::Grpc, |stream| http2(stream, echo_stream)).await;
        shop.orders.rule(vec![deny_path("/shop.Inventory/*")]);
        let mut client = client2(shop.web.connect(vip()).await).await;
        let request = Request::post("http://orders/shop.Inventory/Get")
            .header("content-type", "application/grpc")
            .body(full(""))
            .unwrap();

        let answer = client.send_request(request).await.unwrap();

        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], "7");
    });
}

#[test]
fn a_new_law_resets_the_running_stream_that_it_forbids_and_no_other() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let open = |path, body| Request::post(format!("http://orders/{path}")).body(body).unwrap();
        let (feed_a, body_a) = fed();
        let (feed_b, body_b) = fed();
        let mut a = client.send_request(open("a", body_a)).await.unwrap().into_body();
        let mut b = client.send_request(open("b", body_b)).await.unwrap().into_body();
        feed_a.send(Frame::data(Bytes::from("x"))).unwrap();
        assert_eq!(a.frame().await.unwrap().unwrap().into_data().unwrap(), "x");

        shop.orders.rule(vec![deny_path("/a")]);

        assert!(a.frame().await.unwrap().is_err(), "the forbidden stream is reset");
        feed_b.send(Frame::data(Bytes::from("y"))).unwrap();
        assert_eq!(b.frame().await.unwrap().unwrap().into_data().unwrap(), "y");
    });
}

#[test]
fn a_new_law_ends_a_forbidden_opaque_stream() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let mut stream = shop.web.connect(vip()).await;
        let mut word = [0; 6];
        stream.read_exact(&mut word).await.unwrap();

        shop.orders.rule(vec![deny(wire::Operation {
            ports: vec![shop.port.to_string()],
            ..wire::Operation::default()
        })]);

        assert!(stream.read_exact(&mut word).await.is_err());
        let mut next = shop.web.connect(vip()).await;
        let _ = next.write_all(b"again").await;
        assert!(next.read_exact(&mut word).await.is_err(), "nor may a new one begin");
        eventually("it is counted", || shop.web.refused("peer_refused") > 0).await;
        eventually("at the other end as well", || shop.orders.refused("denied") > 0).await;
    });
}
