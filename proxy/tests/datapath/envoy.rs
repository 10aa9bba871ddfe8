//! Against a real Envoy that is configured as a sidecar of an Istio mesh, in both directions: HTTP/1.1, HTTP/2 and bytes, who
//! may call whom, and what each tells the other.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use douane_proto::{
    mesh::{Dialect, Endpoint, Port, Protocol, Workload},
    mtls::MtlsMode,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{
    apps::{client1, client2, echo_stream, fed, full, greet_and_echo, http1, http2, mirror},
    envoy_sidecar::{Envoy, Sidecar, program},
    pods::{Shop, eventually, run, vip, workload},
    upgrade::{Heard, exchanges, switches},
};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const LEGACY: &str = "spiffe://cluster.local/ns/shop/sa/legacy";

/// An application that no sidecar of ours stands before.
async fn app<Served: Future<Output = ()> + 'static>(
    serve: impl Fn(TcpStream) -> Served + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream));
        }
    });
    address
}

/// The service that `web` calls is now a pod called `legacy` behind Envoy.
async fn behind_envoy(shop: &Shop, envoy: &Envoy, protocol: Protocol) {
    leads_to(shop, envoy.listener("inbound").await, "legacy", protocol);
}

fn leads_to(shop: &Shop, at: SocketAddr, name: &str, protocol: Protocol) {
    let port = Port { number: at.port(), protocol, name: String::new() };
    let legacy = Workload { dialect: Dialect::Istio, ..workload(name, at.ip(), vec![port]) };
    shop.web.change_service(|service, _| {
        service.ports[0].protocol = protocol;
        let targets = BTreeMap::from([(80, at.port())]);
        service.endpoints = vec![Endpoint { workload: Arc::new(legacy), targets }];
    });
}

async fn echoes(mut stream: TcpStream) {
    let mut greeting = [0; 6];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello ");
    stream.write_all(b"word").await.unwrap();
    // The half that stays open carries the echo.
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"word");
}

#[test]
fn requests_over_http1_reach_the_application_behind_an_istio_sidecar() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let identity = shop.ca.identity("legacy", 1);
        let app = app(|stream| http1(stream, mirror)).await;
        let sidecar = Sidecar { identity: &identity, callers: &[WEB], app, peer: (shop.pod(), ORDERS) };
        let envoy = Envoy::start(&program, &sidecar).await;
        behind_envoy(&shop, &envoy, Protocol::Http1).await;
        let mut client = client1(shop.web.connect(vip()).await).await;

        for body in ["one", "two"] {
            client.ready().await.unwrap();
            let request = Request::post("/a?b=1")
                .header("host", "orders")
                .header("x-douane-http", "1.0")
                .header("x-forwarded-client-cert", "By=me");
            let answer = client.send_request(request.body(full(body)).unwrap()).await.unwrap();

            assert_eq!(answer.status(), StatusCode::OK);
            let told =
                |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(told("x-request").unwrap(), "POST /a?b=1 HTTP/1.1");
            assert_eq!(told("x-told-host").unwrap(), "orders");
            assert_eq!(told("x-told-x-envoy-saw-peer").unwrap(), WEB);
            assert_eq!(told("x-told-x-envoy-saw-version").unwrap(), "HTTP/1.1");
            let name = told("x-told-x-envoy-saw-name").unwrap();
            assert_eq!(name, "outbound_.80_._.orders.shop.svc.cluster.local");
            assert!(told("x-told-traceparent").is_some());
            let ours = answer.headers().keys().any(|name| name.as_str().contains("x-douane"));
            assert!(!ours, "{:?}", answer.headers());
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }
        let told_of = || shop.web.access.read().iter().filter(|line| line["peer_id"] == LEGACY).count();
        eventually("both are recorded", || told_of() == 2).await;
    });
}

#[test]
fn an_istio_sidecar_calls_over_http1_and_is_known_by_its_certificate() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let identity = shop.ca.identity("legacy", 1);
        let sidecar =
            Sidecar { identity: &identity, callers: &[WEB], app: shop.pod(), peer: (shop.pod(), ORDERS) };
        let envoy = Envoy::start(&program, &sidecar).await;
        let way = envoy.listener("to-http1").await;
        let mut client = client1(TcpStream::connect(way).await.unwrap()).await;

        for body in ["one", "two"] {
            client.ready().await.unwrap();
            let request = Request::post("/a").header("host", "orders").header("x-douane-http", "1.0");
            let answer = client.send_request(request.body(full(body)).unwrap()).await.unwrap();

            assert_eq!(answer.status(), StatusCode::OK);
            let headers = answer.headers();
            assert_eq!(headers["x-request"], "POST /a HTTP/1.1");
            assert_eq!(headers["x-told-x-forwarded-client-cert"], format!("By={ORDERS};URI={LEGACY}"));
            assert!(!headers.contains_key("x-told-x-envoy-saw-peer"), "its own words stay outside");
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }
    });
}

#[test]
fn calls_in_both_directions_over_http2_keep_their_trailers() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Grpc, |stream| http2(stream, echo_stream)).await;
        let identity = shop.ca.identity("legacy", 1);
        let app = app(|stream| http2(stream, echo_stream)).await;
        let sidecar = Sidecar { identity: &identity, callers: &[WEB], app, peer: (shop.pod(), ORDERS) };
        let envoy = Envoy::start(&program, &sidecar).await;
        behind_envoy(&shop, &envoy, Protocol::Grpc).await;
        let out = shop.web.connect(vip()).await;
        let back = TcpStream::connect(envoy.listener("to-h2").await).await.unwrap();

        for stream in [out, back] {
            let mut client = client2(stream).await;
            let (feed, body) = fed();
            let request = Request::post("http://orders/shop.Inventory/Watch")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let answer = client.send_request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let mut answer = answer.into_body();
            for word in ["one", "two"] {
                feed.send(Frame::data(Bytes::from(word))).unwrap();
                let frame = answer.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), word);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", HeaderValue::from_static("1"));
            feed.send(Frame::trailers(trailers)).unwrap();
            drop(feed);
            let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}

#[test]
fn bytes_pass_in_both_directions_also_where_the_server_speaks_first() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Undeclared, greet_and_echo).await;
        let identity = shop.ca.identity("legacy", 1);
        let app = app(greet_and_echo).await;
        let sidecar = Sidecar { identity: &identity, callers: &[WEB], app, peer: (shop.pod(), ORDERS) };
        let envoy = Envoy::start(&program, &sidecar).await;
        behind_envoy(&shop, &envoy, Protocol::Tcp).await;

        echoes(shop.web.connect(vip()).await).await;
        echoes(TcpStream::connect(envoy.listener("to-tcp").await).await.unwrap()).await;

        let told_of = || shop.orders.access.read().iter().filter(|line| line["peer_id"] == LEGACY).count();
        eventually("its caller is recorded", || told_of() == 1).await;
    });
}

#[test]
fn whoever_is_not_the_expected_one_is_refused_in_both_directions_by_both() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let identity = shop.ca.identity("legacy", 1);
        let app = app(|stream| http1(stream, mirror)).await;
        let sidecar = Sidecar { identity: &identity, callers: &[ORDERS], app, peer: (shop.pod(), WEB) };
        let envoy = Envoy::start(&program, &sidecar).await;
        let get = || Request::get("/").header("host", "orders").body(full("")).unwrap();

        // Its RBAC knows no `web`.
        behind_envoy(&shop, &envoy, Protocol::Http1).await;
        let mut client = client1(shop.web.connect(vip()).await).await;
        assert_eq!(client.send_request(get()).await.unwrap().status(), StatusCode::FORBIDDEN);

        // It is not whom `web` expects: not one byte of a request is sent.
        leads_to(&shop, envoy.listener("inbound").await, "somebody-else", Protocol::Http1);
        let mut client = client1(shop.web.connect(vip()).await).await;
        assert_eq!(client.send_request(get()).await.unwrap().status(), StatusCode::BAD_GATEWAY);
        shop.web.has_refused("peer_handshake_failed", 1).await;

        // We are not whom it expects.
        let mut client = client1(TcpStream::connect(envoy.listener("to-http1").await).await.unwrap()).await;
        let answer = client.send_request(get()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!answer.headers().contains_key("x-request"));
    });
}

#[test]
fn a_websocket_passes_in_both_directions() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Http1, |stream| switches(stream, Heard::default())).await;
        let identity = shop.ca.identity("legacy", 1);
        let app = app(|stream| switches(stream, Heard::default())).await;
        let sidecar = Sidecar { identity: &identity, callers: &[WEB], app, peer: (shop.pod(), ORDERS) };
        let envoy = Envoy::start(&program, &sidecar).await;
        behind_envoy(&shop, &envoy, Protocol::Http1).await;

        // Without half-close, which Envoy does not keep on such a connection.
        exchanges(shop.web.connect(vip()).await).await;
        exchanges(TcpStream::connect(envoy.listener("to-http1").await).await.unwrap()).await;
    });
}

#[test]
fn in_plaintext_it_is_heard_where_that_is_taken_and_is_nobody() {
    run(async {
        let Some(program) = program() else { return };
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        // What redirection would hand over.
        let (inbound, pod) = (Rc::clone(&shop.orders.inbound), shop.pod());
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = door.local_addr().unwrap();
        spawn_local(async move {
            while let Ok((stream, source)) = door.accept().await {
                let inbound = Rc::clone(&inbound);
                spawn_local(async move { inbound.connection(stream, source, pod).await });
            }
        });
        let identity = shop.ca.identity("legacy", 1);
        let sidecar = Sidecar { identity: &identity, callers: &[WEB], app, peer: (pod, ORDERS) };
        let envoy = Envoy::start(&program, &sidecar).await;
        let way = envoy.listener("to-app-in-plaintext").await;

        for (mode, expected) in
            [(MtlsMode::Strict, StatusCode::SERVICE_UNAVAILABLE), (MtlsMode::Permissive, StatusCode::OK)]
        {
            shop.orders.takes(mode);
            let mut client = client1(TcpStream::connect(way).await.unwrap()).await;
            let request = Request::get("/a")
                .header("host", "orders")
                .header("x-forwarded-client-cert", format!("By={ORDERS};URI={WEB}"));
            let answer = client.send_request(request.body(full("")).unwrap()).await.unwrap();

            assert_eq!(answer.status(), expected);
            assert!(!answer.headers().contains_key("x-told-x-forwarded-client-cert"), "{answer:?}");
        }
    });
}
