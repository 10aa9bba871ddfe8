//! The spans of a hop: when they end, what proves that they belong together, and one for each attempt.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use douane_proxy::config::{
    Limits, Retries,
    tracing::{Sampler, Tracing},
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};

use crate::{
    apps::{AnyBody, client1, fed, full, http1, mirror},
    pods::{Shop, eventually, run, vip},
    sink::{Sink, Told},
};

async fn open(limits: Limits) -> (Shop, Sink) {
    let tracing = Tracing::of(Sampler::Ratio(1.0));
    let shop = Shop::open_traced(tracing, limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
    let sink = Sink::listen().await;
    sink.receives(&shop.web);
    sink.receives(&shop.orders);
    (shop, sink)
}

fn get() -> Request<AnyBody> {
    Request::get("/a?token=secret").header("host", "orders").body(full("")).unwrap()
}

#[test]
fn both_ends_of_a_hop_tell_the_same_proof_of_one_session() {
    run(async {
        let (shop, sink) = open(Limits::default()).await;
        client1(shop.web.connect(vip()).await).await.send_request(get()).await.unwrap();

        eventually("both spans", || sink.spans().len() == 2).await;

        let spans = sink.spans();
        let bindings: Vec<_> = spans.iter().map(|told| told.attribute("douane.tls.binding")).collect();
        assert!(bindings[0].len() == 16 && bindings[0] == bindings[1], "{bindings:?}");
        for log in [&shop.web.access, &shop.orders.access] {
            eventually("its line", || !log.read().is_empty()).await;
            assert_eq!(log.read()[0]["tls_binding"], bindings[0].as_str());
        }
        for told in &spans {
            let overhead: u64 = told.attribute("douane.proxy.overhead_us").parse().unwrap();
            assert!(overhead / 1000 <= told.milliseconds(), "{overhead} us of {} ms", told.milliseconds());
            assert_eq!(told.attribute("url.query"), "", "what a query holds is nobody's business");
            assert!(!told.attribute("url.full").contains("secret"));
        }
        let other = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        client1(other.web.connect(vip()).await).await.send_request(get()).await.unwrap();
        eventually("its line", || !other.web.access.read().is_empty()).await;
        assert_ne!(other.web.access.read()[0]["tls_binding"], bindings[0].as_str(), "another session");
    });
}

#[test]
fn a_span_ends_with_the_last_byte() {
    run(async {
        let (feed, body) = fed();
        let body = Rc::new(Cell::new(Some(body)));
        let app = move |_: Request<Incoming>| {
            let body = body.take().unwrap();
            async move { Response::new(body) }
        };
        let tracing = Tracing::of(Sampler::Ratio(1.0));
        let serve = move |stream| http1(stream, app.clone());
        let shop = Shop::open_traced(tracing, Limits::default(), Protocol::Http1, serve).await;
        let sink = Sink::listen().await;
        sink.receives(&shop.orders);
        let mut client = client1(shop.web.connect(vip()).await).await;
        let mut answer = client.send_request(get()).await.unwrap().into_body();
        feed.send(Frame::data(Bytes::from("begins"))).unwrap();
        answer.frame().await.unwrap().unwrap();

        // The exporter waits a second for company: long past the head of the answer.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert!(sink.spans().is_empty(), "it has not ended");
        drop(feed);
        assert!(answer.frame().await.is_none());

        eventually("the span", || sink.spans().len() == 1).await;
        assert!(sink.spans()[0].milliseconds() >= 1500);
    });
}

#[test]
fn each_attempt_has_a_span_of_its_own() {
    run(async {
        let count = Rc::new(Cell::new(0));
        let app = move |_: Request<Incoming>| {
            count.set(count.get() + 1);
            let status = if count.get() == 1 { 503 } else { 200 };
            async move { Response::builder().status(status).body(full("")).unwrap() }
        };
        let limits = Limits { retries: Retries::Idempotent, ..Limits::default() };
        let tracing = Tracing::of(Sampler::Ratio(1.0));
        let serve = move |stream| http1(stream, app.clone());
        let shop = Shop::open_traced(tracing, limits, Protocol::Http1, serve).await;
        let sink = Sink::listen().await;
        sink.receives(&shop.web);
        sink.receives(&shop.orders);

        let answer = client1(shop.web.connect(vip()).await).await.send_request(get()).await.unwrap();

        assert_eq!(answer.status(), 200);
        eventually("two spans for each attempt", || sink.spans().len() == 4).await;
        let spans = sink.spans();
        for (status, resent, failed) in [("503", "", true), ("200", "1", false)] {
            let with_status = |told: &&Told| told.attribute("http.response.status_code") == status;
            let of = |service| spans.iter().filter(with_status).find(|told| told.service == service).unwrap();
            let (client, server) = (of("web"), of("orders"));
            assert_eq!(client.attribute("http.request.resend_count"), resent);
            assert_eq!(client.is_error(), failed);
            assert_eq!(server.span.parent_span_id, client.span.span_id);
            assert!(client.span.parent_span_id.is_empty() || client.span.parent_span_id == [0; 8]);
        }
        eventually("one line", || shop.web.access.read().len() == 1).await;
    });
}
