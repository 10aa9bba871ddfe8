//! The interesting traces are kept: nobody samples them, and yet all spans of a trace in which a request fails arrive, and
//! none of the others.

use std::{net::SocketAddr, rc::Rc};

use bytes::Bytes;
use douane_proto::mesh::{Port, Protocol};
use douane_proxy::config::{
    Limits,
    tracing::{Sampler, Tracing},
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::{net::TcpListener, task::spawn_local};

use crate::{
    apps::{AnyBody, client1, fed, full, http1},
    pods::{Pod, Shop, eventually, run, vip},
    sink::Sink,
};

/// Answers as the path says.
async fn obeys(request: Request<Incoming>) -> Response<AnyBody> {
    let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
    let forged = format!("{:032x}", trace_of(&request));
    Response::builder().status(status).header("x-douane-retain", forged).body(full("")).unwrap()
}

fn trace_of<B>(request: &Request<B>) -> u128 {
    let parent = request.headers()["traceparent"].to_str().unwrap();
    u128::from_str_radix(&parent[3..35], 16).unwrap()
}

/// Asks `to` for `path` in a trace that nobody samples.
async fn ask(pod: &Pod, to: SocketAddr, path: &str, trace: u128) -> StatusCode {
    let request = Request::get(path)
        .header("host", "orders")
        .header("traceparent", format!("00-{trace:032x}-00f067aa0ba902b7-00"))
        .body(full(""))
        .unwrap();
    client1(pod.connect(to).await).await.send_request(request).await.unwrap().status()
}

/// A server without a sidecar, which answers as the path says.
async fn plain(pods: &[&Pod]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.3.1:0").await.unwrap();
    let (address, at) = (listener.local_addr().unwrap(), SocketAddr::from(([10, 96, 0, 9], 80)));
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(http1(stream, obeys));
        }
    });
    for pod in pods {
        let port = Port { number: 80, protocol: Protocol::Http1, name: String::new() };
        pod.learns_plain_service(at.ip(), port, &[address]);
    }
    at
}

/// Both pods tell `sink`, and each other.
fn told(shop: &Shop, sink: &Sink) {
    for pod in [&shop.web, &shop.orders] {
        sink.receives(pod);
        spawn_local(Rc::clone(&pod.outbound).run(Vec::new()));
    }
}

#[test]
fn a_sibling_that_succeeded_earlier_is_told_that_its_trace_has_failed() {
    run(async {
        let tracing = Tracing::of(Sampler::Never);
        let app = |stream| http1(stream, obeys);
        let shop = Shop::open_traced(tracing, Limits::default(), Protocol::Http1, app).await;
        let (sink, failing) = (Sink::listen().await, plain(&[&shop.web]).await);
        told(&shop, &sink);

        for trace in 1..=20 {
            assert_eq!(ask(&shop.web, vip(), "/200", trace).await, 200);
        }
        for trace in [3, 7] {
            assert_eq!(ask(&shop.web, failing, "/503", trace).await, 503);
        }

        // Both calls, and what `orders` did for the first one.
        let is_whole = || [3, 7].into_iter().all(|trace| sink.of_trace(trace).len() == 3);
        eventually("all spans of both traces", is_whole).await;
        for trace in [3, 7] {
            let spans = sink.of_trace(trace);
            let server = spans.iter().find(|told| told.service == "orders").unwrap();
            assert!(
                spans.iter().any(|told| told.is_client() && told.span.span_id == server.span.parent_span_id)
            );
        }
        assert_eq!(sink.spans().len(), 6, "and nothing of the good ones, whatever an application says");
    });
}

#[test]
fn an_answer_carries_up_that_its_trace_has_failed_further_down() {
    run(async {
        let tracing = Tracing::of(Sampler::Never);
        let (way, mut asked) =
            tokio::sync::mpsc::unbounded_channel::<(u128, tokio::sync::oneshot::Sender<()>)>();
        // An application that asks somebody else, and answers well whatever it hears.
        let app = move |stream| {
            let way = way.clone();
            http1(stream, move |request: Request<Incoming>| {
                let (done, heard) = tokio::sync::oneshot::channel();
                way.send((trace_of(&request), done)).unwrap();
                async move {
                    heard.await.unwrap();
                    Response::new(full("well"))
                }
            })
        };
        let shop = Rc::new(Shop::open_traced(tracing, Limits::default(), Protocol::Http1, app).await);
        let (sink, failing) = (Sink::listen().await, plain(&[&shop.orders]).await);
        told(&shop, &sink);
        let orders = Rc::clone(&shop);
        spawn_local(async move {
            while let Some((trace, done)) = asked.recv().await {
                let path = if trace % 2 == 0 { "/500" } else { "/200" };
                ask(&orders.orders, failing, path, trace).await;
                done.send(()).unwrap();
            }
        });

        for trace in 1..=10 {
            assert_eq!(ask(&shop.web, vip(), "/", trace).await, 200);
        }

        let is_whole = || [2, 4, 6, 8, 10].into_iter().all(|trace| sink.of_trace(trace).len() == 3);
        eventually("three spans of each trace that failed", is_whole).await;
        assert_eq!(sink.spans().len(), 15);
        let of_web = sink.of_trace(2).into_iter().find(|told| told.service == "web").unwrap();
        assert_eq!(of_web.attribute("http.response.status_code"), "200", "it knows by the mark alone");
        assert!(!of_web.is_error());
    });
}

#[test]
fn an_answer_that_has_begun_tells_behind_its_last_byte_and_needs_no_trailers_for_it() {
    run(async {
        let tracing = Tracing::of(Sampler::Never);
        let (way, mut asked) =
            tokio::sync::mpsc::unbounded_channel::<(u128, tokio::sync::mpsc::UnboundedSender<Frame<Bytes>>)>(
            );
        // An application that begins its answer, and then asks somebody else.
        let app = move |stream| {
            let way = way.clone();
            http1(stream, move |request: Request<Incoming>| {
                let (feed, body) = fed();
                feed.send(Frame::data(Bytes::from("begins "))).unwrap();
                way.send((trace_of(&request), feed)).unwrap();
                async { Response::new(body) }
            })
        };
        let shop = Rc::new(Shop::open_traced(tracing, Limits::default(), Protocol::Http1, app).await);
        let (sink, failing) = (Sink::listen().await, plain(&[&shop.orders]).await);
        told(&shop, &sink);
        let orders = Rc::clone(&shop);
        spawn_local(async move {
            while let Some((trace, feed)) = asked.recv().await {
                let path = if trace == 2 { "/500" } else { "/200" };
                ask(&orders.orders, failing, path, trace).await;
                feed.send(Frame::data(Bytes::from("and ends"))).unwrap();
            }
        });

        for trace in 1..=3 {
            let request = Request::get("/")
                .header("host", "orders")
                .header("traceparent", format!("00-{trace:032x}-00f067aa0ba902b7-00"))
                .body(full(""))
                .unwrap();
            let answer = client1(shop.web.connect(vip()).await).await.send_request(request).await.unwrap();
            let collected = answer.into_body().collect().await.unwrap();
            assert!(collected.trailers().is_none(), "an application sees no mark");
            assert_eq!(collected.to_bytes(), "begins and ends");
        }

        eventually("three spans of the one that failed", || sink.of_trace(2).len() == 3).await;
        assert_eq!(sink.spans().len(), 3, "and nothing of the others");
    });
}
