//! Requests and their answers.

use bytes::Bytes;
use douane_proto::mesh::{Port, Protocol};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    apps::{client1, client2, echo_stream, fed, full, http1, http2, mirror, raw},
    pods::{Shop, eventually, run, vip},
};

async fn mirrored() -> Shop {
    Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await
}

fn get(path: &str) -> Request<crate::apps::AnyBody> {
    Request::get(path).header("host", "orders").body(full("")).unwrap()
}

#[test]
fn requests_of_one_connection_reach_the_application_and_their_answers_return() {
    run(async {
        let shop = mirrored().await;
        let mut client = client1(shop.web.connect(vip()).await).await;

        let first = client.send_request(get("/a//b/../c?x=1")).await.unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()["x-request"], "GET /a//c?x=1 HTTP/1.1");
        assert_eq!(first.headers()["x-told-host"], "orders");
        assert!(!first.headers().contains_key("x-told-transfer-encoding"));
        first.into_body().collect().await.unwrap();

        let big = vec![7_u8; 1024 * 1024];
        let post = Request::post("/big").header("host", "orders").body(full(big.clone())).unwrap();
        client.ready().await.unwrap();
        let second = client.send_request(post).await.unwrap();
        assert_eq!(second.headers()["x-told-content-length"], "1048576");
        assert!(second.into_body().collect().await.unwrap().to_bytes() == big);
    });
}

#[test]
fn trailers_travel_both_ways_over_http1() {
    run(async {
        let shop = mirrored().await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(
            &mut stream,
            b"POST /t HTTP/1.1\r\nHost: orders\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
            "X-Sum: 42\r\n\r\n",
        )
        .await;

        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(told.contains("5\r\nhello\r\n0\r\n"), "{told}");
        assert!(told.to_lowercase().ends_with("x-sum: 42\r\n\r\n"), "{told}");
    });
}

#[test]
fn a_grpc_stream_flows_both_ways_while_it_is_open_and_ends_with_its_status() {
    run(async {
        let shop = Shop::open(Protocol::Grpc, |stream| http2(stream, echo_stream)).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let (feed, body) = fed();
        let request = Request::post("http://orders/shop.Inventory/Watch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();

        let answer = client.send_request(request).await.unwrap();
        let mut answer = answer.into_body();
        for word in ["one", "two"] {
            feed.send(Frame::data(Bytes::from(word))).unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        drop(feed);

        let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn an_http10_client_never_hears_chunks() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| {
            http1(stream, |request: Request<_>| async move {
                let version = format!("{:?}", request.version());
                let (feed, body) = fed();
                feed.send(Frame::data(Bytes::from(version))).unwrap();
                http::Response::new(body)
            })
        })
        .await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, b"GET / HTTP/1.0\r\nHost: orders\r\n\r\n", "").await;

        assert!(told.ends_with("\r\n\r\nHTTP/1.0"), "{told}");
        assert!(!told.to_lowercase().contains("chunked"), "{told}");
    });
}

#[test]
fn another_endpoint_answers_where_one_cannot_be_reached_also_without_sidecars() {
    run(async {
        let shop = mirrored().await;
        let listener = tokio::net::TcpListener::bind("127.0.3.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(http1(stream, mirror));
            }
        });
        // Nobody listens on the second.
        let endpoints = [alive, ([127, 0, 3, 2], alive.port()).into()];
        let port = Port { number: 80, protocol: Protocol::Http1, name: String::new() };
        shop.web.learns_plain_service([10, 96, 0, 8].into(), port, &endpoints);

        for _ in 0..10 {
            let mut client = client1(shop.web.connect("10.96.0.8:80".parse().unwrap()).await).await;
            let post = Request::post("/").header("host", "plain").body(full("word")).unwrap();
            let answer = client.send_request(post).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "word");
        }
    });
}

#[test]
fn half_an_answer_is_never_taken_for_a_whole_one() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |mut stream| async move {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
        })
        .await;
        for version in ["1.0", "1.1"] {
            let mut stream = shop.web.connect(vip()).await;
            let request = format!("GET / HTTP/{version}\r\nHost: orders\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();

            let end = stream.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());

            assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "HTTP/{version}");
        }
    });
}

#[test]
fn requests_that_could_be_understood_in_two_ways_are_refused() {
    run(async {
        let shop = mirrored().await;
        for bad in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-client-cert\r\n\r\n",
        ] {
            let mut stream = shop.web.connect(vip()).await;
            let told = raw(&mut stream, bad.as_bytes(), "\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 400"), "{bad}: {told}");
        }
    });
}

#[test]
fn connect_from_an_application_is_refused() {
    run(async {
        let shop = mirrored().await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "\r\n\r\n").await;

        assert!(told.starts_with("HTTP/1.1 405"), "{told}");
    });
}

#[test]
fn identity_comes_from_the_peer_and_never_from_a_header() {
    run(async {
        let shop = mirrored().await;
        let mut client = client1(shop.web.connect(vip()).await).await;
        let mut request = get("/");
        for name in ["x-forwarded-client-cert", "x-douane-http", "x_forwarded_client_cert", "upgrade"] {
            request.headers_mut().insert(name, HeaderValue::from_static("forged"));
        }

        let answer = client.send_request(request).await.unwrap();

        let told = answer.headers();
        assert_eq!(
            told["x-told-x-forwarded-client-cert"],
            "By=spiffe://cluster.local/ns/shop/sa/orders;URI=spiffe://cluster.local/ns/shop/sa/web"
        );
        for name in ["x-told-x-douane-http", "x-told-x_forwarded_client_cert", "x-told-upgrade"] {
            assert!(!told.contains_key(name), "{name}");
        }
        assert!(told.contains_key("x-told-traceparent"));
    });
}

#[test]
fn an_absolute_target_becomes_an_origin_target() {
    run(async {
        let shop = mirrored().await;
        let mut stream = shop.web.connect(vip()).await;

        let told =
            raw(&mut stream, b"GET http://orders/x?y HTTP/1.1\r\nHost: other\r\n\r\n", "\r\n\r\n").await;

        let told = told.to_lowercase();
        assert!(told.contains("x-request: get /x?y http/1.1"), "{told}");
        assert!(told.contains("x-told-host: orders\r\n"), "{told}");
    });
}

#[test]
fn an_unknown_destination_is_refused_and_the_reason_is_not_told() {
    run(async {
        let shop = mirrored().await;
        let mut stream = shop.web.connect("203.0.113.9:80".parse().unwrap()).await;

        let told = raw(&mut stream, b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n", "\r\n\r\n").await;

        assert!(told.starts_with("HTTP/1.1 502"), "{told}");
        assert!(!told.contains("ServiceEntry") && !told.contains("203"), "{told}");
        shop.web.has_refused("unknown_destination", 1).await;
    });
}

#[test]
fn a_control_plane_that_does_not_answer_is_a_refusal() {
    run(async {
        let shop = mirrored().await;
        let mut stream = shop.web.connect("203.0.113.77:80".parse().unwrap()).await;

        let told = raw(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;

        assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_own_law() {
    run(async {
        let shop = mirrored().await;
        let mut client = client1(shop.orders.connect(vip()).await).await;

        let answer = client.send_request(get("/self")).await.unwrap();

        assert_eq!(
            answer.headers()["x-told-x-forwarded-client-cert"],
            "By=spiffe://cluster.local/ns/shop/sa/orders;URI=spiffe://cluster.local/ns/shop/sa/orders"
        );
    });
}

#[test]
fn a_new_generation_takes_new_requests_at_once_and_an_old_stream_goes_on() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let open = |body| Request::post("http://orders/").body(body).unwrap();
        let (old_feed, body) = fed();
        let mut old = client.send_request(open(body)).await.unwrap().into_body();
        let lines = |shop: &Shop| shop.web.outbound.open_lines();
        assert_eq!(lines(&shop), [1]);

        shop.web.identity.send_replace(shop.ca.identity("web", 2));
        let (new_feed, body) = fed();
        let mut new = client.send_request(open(body)).await.unwrap().into_body();

        // The old line is no longer offered, yet its stream goes on.
        assert_eq!(lines(&shop), [2]);
        for (feed, answer, word) in [(&old_feed, &mut old, "old"), (&new_feed, &mut new, "new")] {
            feed.send(Frame::data(Bytes::from(word))).unwrap();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), word);
        }
    });
}

#[test]
fn draining_lets_a_running_request_finish() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let (feed, body) = fed();
        let request = Request::post("http://orders/").body(body).unwrap();
        let mut answer = client.send_request(request).await.unwrap().into_body();

        shop.orders.shutdown.draining.cancel();
        shop.orders.shutdown.tasks.close();
        feed.send(Frame::data(Bytes::from("late"))).unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "late");
        drop(feed);

        let trailers: HeaderMap = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        eventually("the drained sidecar has no task left", || shop.orders.shutdown.tasks.is_empty()).await;
    });
}
