//! Requests to servers without a sidecar, whose other side says nothing more: they end by the limit of the only sidecar there is.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use douane_proto::mesh::{Port, Protocol};
use douane_proxy::config::Limits;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::{net::TcpListener, task::spawn_local};

use crate::{
    apps::{AnyBody, client1, client2, fed, full, http1, http2, mirror},
    pods::{Shop, eventually, run},
};

const PLAIN: &str = "10.96.0.9:80";
/// Far more than what a busy machine lets pass between two bytes that are sent at once.
const REST: Duration = Duration::from_secs(2);

/// `/head` is never answered, `/body` begins to be, everything else is.
async fn stalls(request: Request<Incoming>) -> Response<AnyBody> {
    match request.uri().path() {
        "/head" => std::future::pending().await,
        "/body" => {
            let (feed, body) = fed();
            feed.send(Frame::data(Bytes::from_static(b"begun"))).unwrap();
            spawn_local(async move { feed.closed().await });
            Response::new(body)
        }
        _ => Response::new(full("word")),
    }
}

async fn before_a_plain_server(protocol: Protocol) -> Shop {
    let limits = Limits { stream_idle: REST, ..Limits::default() };
    let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
    spawn_local(Rc::clone(&shop.web.outbound).run(Vec::new()));
    let listener = TcpListener::bind("127.0.3.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match protocol {
                Protocol::Http1 => drop(spawn_local(http1(stream, stalls))),
                _ => drop(spawn_local(http2(stream, stalls))),
            }
        }
    });
    let at: SocketAddr = PLAIN.parse().unwrap();
    shop.web.learns_plain_service(
        at.ip(),
        Port { number: at.port(), protocol, name: String::new() },
        &[plain],
    );
    shop
}

fn get(path: &str) -> Request<AnyBody> {
    Request::get(format!("http://plain{path}")).header("host", "plain").body(full("")).unwrap()
}

#[test]
fn a_request_that_a_plain_server_never_answers_ends_when_it_has_rested_too_long() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let shop = before_a_plain_server(protocol).await;
            let stream = shop.web.connect(PLAIN.parse().unwrap()).await;
            let answer = match protocol {
                Protocol::Http1 => client1(stream).await.send_request(get("/head")).await,
                _ => client2(stream).await.send_request(get("/head")).await,
            };

            assert_eq!(answer.unwrap().status(), 504);
            eventually("it is recorded", || shop.web.refused("idle") == 1).await;
        }
    });
}

#[test]
fn an_upgrade_that_a_plain_server_never_answers_ends_when_it_has_rested_too_long() {
    run(async {
        let shop = before_a_plain_server(Protocol::Http1).await;
        let stream = shop.web.connect(PLAIN.parse().unwrap()).await;
        let mut request = get("/head");
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());

        let answer = client1(stream).await.send_request(request).await;

        assert_eq!(answer.unwrap().status(), 504);
        eventually("it is recorded", || shop.web.refused("idle") == 1).await;
    });
}

#[test]
fn an_answer_to_an_upgrade_that_switches_nothing_and_stops_in_the_middle_ends_broken() {
    run(async {
        let shop = before_a_plain_server(Protocol::Http1).await;
        let stream = shop.web.connect(PLAIN.parse().unwrap()).await;
        let mut request = get("/body");
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());

        let mut answer = client1(stream).await.send_request(request).await.unwrap().into_body();

        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        assert!(answer.frame().await.is_some_and(|frame| frame.is_err()), "half is not the whole");
        eventually("it is recorded", || shop.web.refused("idle") == 1).await;
    });
}

#[test]
fn an_answer_of_a_plain_server_that_stops_in_the_middle_ends_broken_and_others_go_on() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let shop = before_a_plain_server(protocol).await;
            let stream = shop.web.connect(PLAIN.parse().unwrap()).await;
            let answer = match protocol {
                Protocol::Http1 => client1(stream).await.send_request(get("/body")).await,
                _ => client2(stream).await.send_request(get("/body")).await,
            };
            let mut answer = answer.unwrap().into_body();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");

            assert!(answer.frame().await.is_some_and(|frame| frame.is_err()), "half is not the whole");
            eventually("it is recorded", || shop.web.refused("idle") == 1).await;
            let stream = shop.web.connect(PLAIN.parse().unwrap()).await;
            let other = match protocol {
                Protocol::Http1 => client1(stream).await.send_request(get("/")).await,
                _ => client2(stream).await.send_request(get("/")).await,
            };
            assert_eq!(other.unwrap().status(), 200);
        }
    });
}
