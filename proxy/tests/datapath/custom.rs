//! CUSTOM policies over the wire: what external authorizers see, what their answers do, and what happens without one.

use std::{net::SocketAddr, time::Duration};

use douane_proto::{
    mesh::{Dialect, Protocol},
    mtls::MtlsMode,
    wire::{self, provider::Protocol as Speaks},
};
use douane_proxy::authz::envoy::{
    BoolValue, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus,
    OkHttpResponse, Status, check_response::HttpResponse,
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::{
    apps::{client1, client2, echo_stream, fed, full, greet_and_echo, http1, http2, mirror, raw},
    authorizer::{asks, grpc, http, listen, mute, provider},
    pods::{Nobody, Shop, eventually, run, vip, workload},
};

pub(crate) async fn shop() -> Shop {
    Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await
}

/// Lets `orders` find an authorizer without a sidecar.
pub(crate) fn finds(shop: &Shop, at: SocketAddr) {
    let mut plain = workload("authz", at.ip(), Vec::new());
    plain.dialect = Dialect::Plain;
    shop.orders.learns_service("authz.shop", plain, at);
}

pub(crate) fn guarded() -> wire::Rule {
    let operation = wire::Operation { paths: vec!["/guarded*".to_owned()], ..wire::Operation::default() };
    wire::Rule { to: vec![operation], ..wire::Rule::default() }
}

pub(crate) async fn post(shop: &Shop, path: &str, body: &str) -> Response<Incoming> {
    let request = Request::post(path)
        .header("host", "orders.shop")
        .header("x-role", "reader")
        .header("cookie", "session=1")
        .header("authorization", "Basic x")
        .header("content-length", body.len());
    let mut client = client1(shop.web.connect(vip()).await).await;
    client.send_request(request.body(full(body.to_owned())).unwrap()).await.unwrap()
}

fn told<'a>(answer: &'a Response<Incoming>, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

pub(crate) async fn text(answer: Response<Incoming>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn option(key: &str, value: &str, append: bool) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append: Some(BoolValue { value: append }),
    }
}

fn allows(with: OkHttpResponse) -> CheckResponse {
    CheckResponse { status: Some(Status::default()), http_response: Some(HttpResponse::OkResponse(with)) }
}

fn denies(with: DeniedHttpResponse) -> CheckResponse {
    let status = Status { code: 7, ..Status::default() };
    CheckResponse { status: Some(status), http_response: Some(HttpResponse::DeniedResponse(with)) }
}

#[test]
fn a_grpc_authorizer_sees_the_request_and_its_headers_are_decided_on_and_sent_on() {
    run(async {
        let shop = shop().await;
        let (asked, serve) = grpc(|_| {
            allows(OkHttpResponse {
                headers: vec![
                    option("x-user", "ann", false),
                    option("x-role", "writer", true),
                    option("x-forwarded-client-cert", "URI=spiffe://a", false),
                ],
                headers_to_remove: vec!["cookie".to_owned(), ":path".to_owned()],
                response_headers_to_add: vec![option("x-checked", "yes", false)],
                ..OkHttpResponse::default()
            })
        });
        finds(&shop, listen(serve).await);
        let mut law = asks(provider(Speaks::Grpc), guarded());
        // What the authorizer added is decided on, too.
        law.policies.push(wire::Policy {
            namespace: "shop".to_owned(),
            name: "users".to_owned(),
            rules: vec![wire::Rule {
                when: vec![wire::Condition {
                    key: "request.headers[x-user]".to_owned(),
                    values: vec!["ann".to_owned()],
                    ..wire::Condition::default()
                }],
                ..wire::Rule::default()
            }],
            ..wire::Policy::default()
        });
        shop.orders.rule_by(law);

        let answer = post(&shop, "/guarded/a?b=1", "word").await;

        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(told(&answer, "x-told-x-user"), Some("ann"));
        let roles: Vec<_> = answer.headers().get_all("x-told-x-role").iter().collect();
        assert_eq!(roles, ["writer"], "the mirror tells the last of two");
        assert_eq!(told(&answer, "x-told-cookie"), None);
        assert_eq!(told(&answer, "x-checked"), Some("yes"));
        let identity = told(&answer, "x-told-x-forwarded-client-cert").unwrap().to_owned();
        assert!(identity.ends_with("URI=spiffe://cluster.local/ns/shop/sa/web"), "{identity}");
        assert_eq!(text(answer).await, "word");
        let asked = asked.lock().unwrap();
        let seen = asked[0].attributes.clone().unwrap();
        let http = seen.request.unwrap().http.unwrap();
        assert_eq!((&*http.method, &*http.path, &*http.host), ("POST", "/guarded/a?b=1", "orders.shop"));
        assert_eq!(http.headers["x-role"], "reader");
        assert_eq!(http.headers[":authority"], "orders.shop");
        assert_eq!(http.body, "");
        assert_eq!(seen.source.unwrap().principal, "spiffe://cluster.local/ns/shop/sa/web");
        let destination = seen.destination.unwrap();
        assert_eq!(destination.principal, "spiffe://cluster.local/ns/shop/sa/orders");
        assert_eq!(destination.address.unwrap().socket_address.unwrap().port_value, u32::from(shop.port));
    });
}

#[test]
fn only_what_a_rule_names_is_asked_for() {
    run(async {
        let shop = shop().await;
        let (asked, serve) = grpc(|_| denies(DeniedHttpResponse::default()));
        finds(&shop, listen(serve).await);
        shop.orders.rule_by(asks(provider(Speaks::Grpc), guarded()));

        assert_eq!(post(&shop, "/open", "").await.status().as_u16(), 200);
        assert!(asked.lock().unwrap().is_empty());
        assert_eq!(post(&shop, "/guarded", "").await.status().as_u16(), 403);
        assert_eq!(asked.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_grpc_authorizer_says_how_it_denies_but_never_that_it_allows() {
    run(async {
        let shop = shop().await;
        let (_, serve) = grpc(|request: &CheckRequest| {
            let http = request.attributes.clone().unwrap().request.unwrap().http.unwrap();
            denies(DeniedHttpResponse {
                status: Some(HttpStatus { code: http.path.trim_start_matches("/guarded/").parse().unwrap() }),
                headers: vec![
                    option("location", "https://login.example", false),
                    option("content-length", "0", false),
                ],
                body: "log in first".to_owned(),
            })
        });
        finds(&shop, listen(serve).await);
        shop.orders.rule_by(asks(provider(Speaks::Grpc), guarded()));

        for (says, expected) in [(302, 302), (401, 401), (418, 418), (503, 503), (200, 403), (0, 403)] {
            let answer = post(&shop, &format!("/guarded/{says}"), "word").await;
            assert_eq!(answer.status().as_u16(), expected);
            assert_eq!(told(&answer, "location"), Some("https://login.example"));
            assert_eq!(text(answer).await, "log in first");
        }
        shop.orders.has_refused("authorizer_denied", 6).await;
    });
}

#[test]
fn an_http_authorizer_sees_what_its_settings_name_and_its_headers_pass_as_they_say() {
    run(async {
        let shop = shop().await;
        let (heard, serve) = http(|request| {
            let denied = request.uri().path().ends_with("/denied");
            let answer = Response::builder()
                .status(if denied { 401 } else { 200 })
                .header("x-user", "ann")
                .header("x-role", "writer")
                .header("x-secret", "1")
                .header("www-authenticate", "Basic");
            answer.body(full(if denied { "who are you?" } else { "" })).unwrap()
        });
        finds(&shop, listen(serve).await);
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut guard = provider(Speaks::Http);
        guard.path_prefix = "/check".to_owned();
        guard.include_request_headers_in_check = words(&["x-ro*"]);
        guard.include_additional_headers_in_check = [("x-mesh".to_owned(), "shop".to_owned())].into();
        guard.headers_to_upstream_on_allow = words(&["x-user", "X-Role"]);
        guard.headers_to_downstream_on_allow = words(&["x-user"]);
        guard.headers_to_downstream_on_deny = words(&["www-*"]);
        shop.orders.rule_by(asks(guard, guarded()));

        let allowed = post(&shop, "/guarded/a?b=1", "word").await;
        let denied = post(&shop, "/guarded/denied", "word").await;

        assert_eq!(allowed.status().as_u16(), 200);
        assert_eq!(told(&allowed, "x-told-x-user"), Some("ann"));
        assert_eq!(told(&allowed, "x-told-x-role"), Some("writer"), "overwritten");
        assert_eq!(told(&allowed, "x-told-x-secret"), None);
        assert_eq!(told(&allowed, "x-user"), Some("ann"));
        assert_eq!(text(allowed).await, "word");
        assert_eq!(denied.status().as_u16(), 401);
        assert_eq!(told(&denied, "www-authenticate"), Some("Basic"));
        assert_eq!(told(&denied, "x-user"), None);
        assert_eq!(text(denied).await, "who are you?");
        let heard = heard.borrow();
        let (head, body) = heard[0].clone().into_parts();
        assert_eq!((head.method.as_str(), head.uri.to_string()), ("POST", "/check/guarded/a?b=1".to_owned()));
        for (name, expected) in [
            ("host", Some("orders.shop")),
            ("x-role", Some("reader")),
            ("authorization", Some("Basic x")),
            ("x-mesh", Some("shop")),
            ("cookie", None),
            ("content-length", Some("0")),
        ] {
            assert_eq!(head.headers.get(name).map(|value| value.to_str().unwrap()), expected, "{name}");
        }
        assert!(body.is_empty());
    });
}

#[test]
fn an_authorizer_in_the_mesh_is_reached_by_mutual_tls() {
    run(async {
        let shop = shop().await;
        let (asked, serve) = grpc(|_| allows(OkHttpResponse::default()));
        let at = shop.web.serves(serve).await;
        shop.orders.learns_service("authz.shop", workload("web", at.ip(), Vec::new()), at);
        shop.orders.rule_by(asks(provider(Speaks::Grpc), guarded()));

        assert_eq!(post(&shop, "/guarded", "").await.status().as_u16(), 200);

        assert_eq!(asked.lock().unwrap().len(), 1);
        eventually("its sidecar has seen orders", || {
            let metrics = shop.web.metrics();
            let mut lines =
                metrics.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
            lines.any(|line| line.contains("tls=\"mtls\"") && line.contains("peer_workload=\"orders\""))
        })
        .await;
    });
}

#[test]
fn an_authorizer_that_cannot_be_asked_denies_unless_it_fails_open() {
    run(async {
        let shop = shop().await;
        let slow = listen(mute).await;
        let down = Nobody::new();
        let (_, serve) = http(|_| Response::builder().status(500).body(full("")).unwrap());
        let broken = listen(serve).await;
        let mut fastest = Duration::MAX;
        for speaks in [Speaks::Grpc, Speaks::Http] {
            for at in [slow, down.address(), broken] {
                finds(&shop, at);
                for (fail_open, status_on_error, expected) in
                    [(false, 0, 403), (false, 503, 503), (true, 0, 200)]
                {
                    let guard =
                        wire::Provider { timeout: 200, fail_open, status_on_error, ..provider(speaks) };
                    shop.orders.rule_by(asks(guard, guarded()));
                    let started = Instant::now();
                    assert_eq!(
                        post(&shop, "/guarded", "").await.status().as_u16(),
                        expected,
                        "{speaks:?} {at}"
                    );
                    if at == slow {
                        fastest = fastest.min(started.elapsed());
                    }
                }
            }
        }
        // One of them meets a machine that has nothing else to do.
        assert!(fastest < Duration::from_millis(900), "{fastest:?}");
        shop.orders.has_refused("authorizer_failed", 12).await;
    });
}

#[test]
fn an_authorizer_that_nobody_defined_denies_what_it_would_be_asked_for() {
    run(async {
        let shop = shop().await;
        let law = asks(provider(Speaks::Grpc), guarded());
        shop.orders.rule_by(wire::PolicySet { providers: Vec::new(), ..law });

        assert_eq!(post(&shop, "/guarded", "").await.status().as_u16(), 403);
        assert_eq!(post(&shop, "/open", "").await.status().as_u16(), 200);
    });
}

#[test]
fn opaque_streams_are_asked_for_over_grpc() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let (asked, serve) = grpc(|_| allows(OkHttpResponse::default()));
        let allowing = listen(serve).await;
        let (_, serve) = grpc(|_| denies(DeniedHttpResponse::default()));
        let denying = listen(serve).await;
        shop.orders.rule_by(asks(provider(Speaks::Grpc), wire::Rule::default()));

        finds(&shop, allowing);
        assert_eq!(raw(&mut shop.web.connect(vip()).await, b"", "hello ").await, "hello ");
        let seen = asked.lock().unwrap()[0].attributes.clone().unwrap();
        assert!(seen.request.unwrap().http.is_none());
        assert_eq!(seen.source.unwrap().principal, "spiffe://cluster.local/ns/shop/sa/web");

        finds(&shop, denying);
        let mut refused = shop.web.connect(vip()).await;
        let _ = refused.write_all(b"x").await;
        assert!(refused.read_u8().await.is_err());
    });
}

#[test]
fn a_new_law_that_must_ask_cuts_what_the_authorizer_denies_and_nothing_else() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let (asked, serve) = grpc(|request: &CheckRequest| {
            let http = request.attributes.clone().unwrap().request.unwrap().http.unwrap();
            if http.path == "/guarded/no" {
                return denies(DeniedHttpResponse::default());
            }
            allows(OkHttpResponse::default())
        });
        finds(&shop, listen(serve).await);
        let mut client = client2(shop.web.connect(vip()).await).await;
        let open = |path, body| Request::post(format!("http://orders/guarded/{path}")).body(body).unwrap();
        let ((_feed_no, body_no), (feed_yes, body_yes)) = (fed(), fed());
        let mut no = client.send_request(open("no", body_no)).await.unwrap().into_body();
        let mut yes = client.send_request(open("yes", body_yes)).await.unwrap().into_body();

        shop.orders.rule_by(asks(provider(Speaks::Grpc), guarded()));

        assert!(no.frame().await.unwrap().is_err(), "the denied stream is reset");
        eventually("both are asked for", || asked.lock().unwrap().len() == 2).await;
        feed_yes.send(Frame::data("y".into())).unwrap();
        assert_eq!(yes.frame().await.unwrap().unwrap().into_data().unwrap(), "y");
    });
}

#[test]
fn an_http_authorizer_is_not_got_round_by_bytes_that_do_not_look_like_http() {
    run(async {
        let shop = Shop::open(Protocol::Undeclared, greet_and_echo).await;
        let (heard, serve) = http(|_| Response::builder().status(403).body(full("")).unwrap());
        finds(&shop, listen(serve).await);
        shop.orders.rule_by(asks(provider(Speaks::Http), wire::Rule::default()));

        for _ in 0..2 {
            let told = raw(&mut shop.web.connect(vip()).await, b"EHLO a\r\n", "hello ").await;
            assert_eq!(told, "");
        }
        shop.orders.takes(MtlsMode::Permissive);
        let told = raw(&mut shop.orders.knock(shop.pod()).await, b"EHLO a\r\n", "hello ").await;
        assert_eq!(told, "");
        assert!(heard.borrow().is_empty());

        // However long its request line, a request is one.
        let long = format!("GET /{} HTTP/1.1\r\nHost: orders\r\n\r\n", "a".repeat(20_000));
        let told = raw(&mut shop.web.connect(vip()).await, long.as_bytes(), "\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 403"), "{told}");
        assert_eq!(heard.borrow().len(), 1);
        eventually("bytes are refused", || shop.orders.refused("http_needed") >= 2).await;
    });
}

#[test]
fn a_new_law_does_not_ask_again_what_the_same_authorizer_has_answered() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let (asked, serve) = grpc(|_| allows(OkHttpResponse::default()));
        finds(&shop, listen(serve).await);
        let law = asks(provider(Speaks::Grpc), guarded());
        shop.orders.rule_by(law.clone());
        let mut client = client2(shop.web.connect(vip()).await).await;
        let (feed, body) = fed();
        let request = Request::post("http://orders/guarded").body(body).unwrap();
        let mut stream = client.send_request(request).await.unwrap().into_body();

        // Nobody is there any more who could answer.
        let down = Nobody::new();
        finds(&shop, down.address());
        let mut more = law.clone();
        more.policies.push(wire::Policy { name: "more".to_owned(), ..law.policies[0].clone() });
        shop.orders.rule_by(more.clone());
        feed.send(Frame::data("y".into())).unwrap();
        assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), "y");
        assert_eq!(asked.lock().unwrap().len(), 1);

        more.providers[0].timeout = 200;
        shop.orders.rule_by(more);
        assert!(stream.frame().await.unwrap().is_err(), "an authorizer that is defined anew is another one");
    });
}

#[test]
fn a_page_of_an_authorizer_disturbs_neither_grpc_nor_head() {
    run(async {
        let shop = Shop::open(Protocol::Http2, |stream| http2(stream, echo_stream)).await;
        let (_, serve) = http(|_| {
            let page = Response::builder().status(403).header("content-type", "text/html");
            page.header("grpc-status", "0").body(full("<p>no</p>")).unwrap()
        });
        finds(&shop, listen(serve).await);
        shop.orders.rule_by(asks(provider(Speaks::Http), guarded()));
        let mut client = client2(shop.web.connect(vip()).await).await;

        let call = Request::post("http://orders/guarded").header("content-type", "application/grpc");
        let call = client.send_request(call.body(full("")).unwrap()).await.unwrap();

        assert_eq!(
            (told(&call, "grpc-status"), told(&call, "content-type")),
            (Some("7"), Some("application/grpc"))
        );

        let (_, serve) = grpc(|_| {
            denies(DeniedHttpResponse { body: "<p>no</p>".to_owned(), ..DeniedHttpResponse::default() })
        });
        finds(&shop, listen(serve).await);
        shop.orders.rule_by(asks(provider(Speaks::Grpc), guarded()));
        let head = Request::head("http://orders/guarded").body(full("")).unwrap();
        let head = client.send_request(head).await.unwrap();

        assert_eq!(head.status().as_u16(), 403);
        assert_eq!(told(&head, "content-length"), Some("9"));
        assert_eq!(text(head).await, "");
    });
}
