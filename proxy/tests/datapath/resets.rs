//! Spans of exchanges that end in their middle: with the reset or the close that ended them, whoever did it.

use std::rc::Rc;

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use douane_proxy::config::{
    Limits,
    tracing::{Sampler, Tracing},
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, mpsc},
    task::spawn_local,
};

use crate::{
    apps::{AnyBody, client1, client2, fed, full, http1, http2, raw},
    pods::{Shop, eventually, run, vip},
    sink::{Sink, Told},
};

async fn open<F: Future<Output = ()> + 'static>(
    protocol: Protocol,
    app: impl Fn(TcpStream) -> F + 'static,
) -> (Shop, Sink) {
    let tracing = Tracing::of(Sampler::Ratio(1.0));
    let shop = Shop::open_traced(tracing, Limits::default(), protocol, app).await;
    let sink = Sink::listen().await;
    sink.receives(&shop.web);
    sink.receives(&shop.orders);
    (shop, sink)
}

fn get() -> Request<AnyBody> {
    Request::get("http://orders/a").header("host", "orders").body(full("")).unwrap()
}

/// Begins its answer, and ends it when the test drops what it is given.
fn begins(
    fed_by: mpsc::UnboundedSender<mpsc::UnboundedSender<Frame<Bytes>>>,
) -> impl Fn(Request<Incoming>) -> std::future::Ready<Response<AnyBody>> + Clone {
    move |_| {
        let (feed, body) = fed();
        feed.send(Frame::data(Bytes::from("begins"))).unwrap();
        fed_by.send(feed).unwrap();
        std::future::ready(Response::new(body))
    }
}

/// Both spans of the hop, as soon as they are told.
async fn both(sink: &Sink) -> [Told; 2] {
    eventually("both spans", || sink.spans().len() == 2).await;
    let spans = sink.spans();
    assert_eq!(spans.iter().filter(|told| told.is_client()).count(), 1);
    assert!(spans.iter().all(|told| told.attribute("http.response.status_code") == "200"));
    spans.try_into().unwrap_or_else(|_| panic!("two"))
}

fn nobody_is_to_blame(spans: &[Told]) {
    for told in spans {
        assert!(!told.is_error() && told.attribute("error.type").is_empty(), "{}", told.service);
        assert_eq!(told.attribute("douane.refusal"), "client_gone", "{}", told.service);
    }
}

fn it_broke(spans: &[Told]) {
    for told in spans {
        assert!(told.is_error() && !told.attribute("error.type").is_empty(), "{}", told.service);
        assert_eq!(told.attribute("douane.response_origin"), "upstream", "its status was the application's");
    }
}

#[test]
fn a_stream_that_its_client_resets_ends_both_spans_while_the_application_still_answers() {
    run(async {
        let (fed_by, mut feeds) = mpsc::unbounded_channel();
        let app = begins(fed_by);
        let (shop, sink) = open(Protocol::Http2, move |stream| http2(stream, app.clone())).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let mut answer = client.send_request(get()).await.unwrap().into_body();
        answer.frame().await.unwrap().unwrap();
        let still_open = feeds.recv().await.unwrap();

        drop(answer);

        nobody_is_to_blame(&both(&sink).await);
        drop((still_open, client));
    });
}

#[test]
fn a_stream_that_the_application_resets_ends_both_spans_as_a_failure() {
    run(async {
        let go = Rc::new(Notify::new());
        let told = Rc::clone(&go);
        let app = move |stream: TcpStream| {
            let go = Rc::clone(&told);
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data(Bytes::from("begins"), false).unwrap();
                    let go = Rc::clone(&go);
                    spawn_local(async move {
                        go.notified().await;
                        body.send_reset(h2::Reason::INTERNAL_ERROR);
                    });
                }
            }
        };
        let (shop, sink) = open(Protocol::Http2, app).await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let mut answer = client.send_request(get()).await.unwrap().into_body();
        answer.frame().await.unwrap().unwrap();

        go.notify_one();

        assert!(answer.frame().await.unwrap().is_err(), "half of an answer is not the whole");
        it_broke(&both(&sink).await);
    });
}

#[test]
fn a_client_that_closes_in_the_middle_ends_both_spans_with_the_next_bytes_for_it() {
    run(async {
        let (fed_by, mut feeds) = mpsc::unbounded_channel();
        let app = begins(fed_by);
        let (shop, sink) = open(Protocol::Http1, move |stream| http1(stream, app.clone())).await;
        let mut client = shop.web.connect(vip()).await;
        let asked = b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n";
        assert!(raw(&mut client, asked, "begins").await.starts_with("HTTP/1.1 200 "));
        let still_open = feeds.recv().await.unwrap();

        drop(client);

        // HTTP/1 has no word for it, and the end of what a client sends is not the end of what it hears: only what is written
        // to it finds out. The application has not ended its answer.
        eventually("the application hears of it", || {
            still_open.send(Frame::data(Bytes::from_static(b"tick "))).is_err()
        })
        .await;
        nobody_is_to_blame(&both(&sink).await);
    });
}

#[test]
fn an_application_that_closes_in_the_middle_ends_both_spans_as_a_failure() {
    run(async {
        let go = Rc::new(Notify::new());
        let told = Rc::clone(&go);
        let app = move |mut stream: TcpStream| {
            let go = Rc::clone(&told);
            async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegins").await.unwrap();
                go.notified().await;
            }
        };
        let (shop, sink) = open(Protocol::Http1, app).await;
        let mut client = client1(shop.web.connect(vip()).await).await;
        let mut answer = client.send_request(get()).await.unwrap().into_body();
        answer.frame().await.unwrap().unwrap();

        go.notify_one();

        assert!(answer.frame().await.unwrap().is_err(), "half of an answer is not the whole");
        it_broke(&both(&sink).await);
    });
}
