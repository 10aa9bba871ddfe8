//! gRPC as its four kinds of calls use HTTP/2, with deadlines, cancellation and statuses, through two sidecars.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::task::spawn_local;

use crate::{
    apps::{AnyBody, client2, echo_stream, fed, full, http2},
    pods::{Shop, eventually, run, vip},
};

/// A cancelled call must not keep an application busy for longer, on loopback; a busy machine has its part in it.
const QUICKLY: Duration = Duration::from_secs(10);

fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    Bytes::from([&[0], &length[..], text.as_bytes()].concat())
}

fn call(method: &str, body: AnyBody) -> Request<AnyBody> {
    Request::post(format!("http://orders/shop.Inventory/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

fn ended(status: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static("as%20told"));
    Frame::trailers(trailers)
}

/// The kinds by their names. `Count` and `Unary` answer when all has come, `List` with three messages, `Watch` as it comes.
async fn inventory(request: Request<Incoming>) -> Response<AnyBody> {
    let kind = request.uri().path().rsplit('/').next().unwrap().to_owned();
    if kind == "Watch" {
        return echo_stream(request).await;
    }
    assert_eq!(request.headers()["te"], "trailers");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let (feed, body) = fed();
    if kind == "List" {
        for text in ["one", "two"] {
            feed.send(Frame::data(message(text))).unwrap();
        }
    }
    feed.send(Frame::data(asked)).unwrap();
    feed.send(ended(if kind == "Refuse" { "9" } else { "0" })).unwrap();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

async fn messages(answer: Response<Incoming>) -> (Bytes, HeaderMap) {
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let answer = answer.into_body().collect().await.unwrap();
    let trailers = answer.trailers().cloned().unwrap();
    (answer.to_bytes(), trailers)
}

#[test]
fn calls_of_all_four_kinds_arrive_with_their_messages_and_statuses() {
    run(async {
        for protocol in [Protocol::Grpc, Protocol::Undeclared] {
            let shop = Shop::open(protocol, |stream| http2(stream, inventory)).await;
            let mut client = client2(shop.web.connect(vip()).await).await;

            let unary = client.send_request(call("Unary", full(message("word")))).await.unwrap();
            assert_eq!(messages(unary).await.0, message("word"));

            let (feed, body) = fed();
            let counting = client.send_request(call("Count", body));
            for text in ["a", "b", "c"] {
                feed.send(Frame::data(message(text))).unwrap();
            }
            drop(feed);
            let all = [message("a"), message("b"), message("c")].concat();
            assert_eq!(messages(counting.await.unwrap()).await.0, all);

            let listed = client.send_request(call("List", full(message("three")))).await.unwrap();
            let all = [message("one"), message("two"), message("three")].concat();
            assert_eq!(messages(listed).await.0, all);

            let (feed, body) = fed();
            let mut watched = client.send_request(call("Watch", body)).await.unwrap().into_body();
            for text in ["x", "y"] {
                feed.send(Frame::data(message(text))).unwrap();
                let told = watched.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(told, message(text));
            }
            drop(feed);
            let trailers = watched.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "0");

            // A status of the application's own is none of ours.
            let refused = client.send_request(call("Refuse", full(message("x")))).await.unwrap();
            assert_eq!(refused.status(), 200);
            let (_, trailers) = messages(refused).await;
            assert_eq!(
                (&trailers["grpc-status"], &trailers["grpc-message"]),
                (&"9".parse().unwrap(), &"as%20told".parse().unwrap())
            );
            for pod in [&shop.web, &shop.orders] {
                let recorded = || pod.access.read().iter().any(|line| line["grpc_status"] == 9);
                eventually("it is recorded", recorded).await;
            }
        }
    });
}

#[test]
fn an_answer_of_trailers_alone_stays_one() {
    run(async {
        let app = |_: Request<Incoming>| async {
            let answer = Response::builder().header("content-type", "application/grpc");
            answer.header("grpc-status", "5").header("grpc-message", "no%20such").body(full("")).unwrap()
        };
        let shop = Shop::open(Protocol::Grpc, move |stream| http2(stream, app)).await;
        let mut client = client2(shop.web.connect(vip()).await).await;

        let answer = client.send_request(call("Unary", full(message("x")))).await.unwrap();

        assert_eq!(
            (&answer.headers()["grpc-status"], &answer.headers()["grpc-message"]),
            (&"5".parse().unwrap(), &"no%20such".parse().unwrap())
        );
        // The headers' own frame has ended the stream.
        assert!(hyper::body::Body::is_end_stream(answer.body()));
    });
}

#[test]
fn a_deadline_reaches_the_application_and_a_call_that_is_given_up_ends_there_at_once() {
    struct Leaves(Rc<Cell<u32>>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    run(async {
        let (busy, told) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(String::new())));
        let (counted, heard) = (Rc::clone(&busy), Rc::clone(&told));
        let shop = Shop::open(Protocol::Grpc, move |stream| {
            let (counted, heard) = (Rc::clone(&counted), Rc::clone(&heard));
            http2(stream, move |request: Request<Incoming>| {
                *heard.borrow_mut() = request.headers()["grpc-timeout"].to_str().unwrap().to_owned();
                counted.set(counted.get() + 1);
                let leaves = Leaves(Rc::clone(&counted));
                async move {
                    let _leaves = leaves;
                    std::future::pending::<Response<AnyBody>>().await
                }
            })
        })
        .await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let (open, streaming) = fed();
        for (number, body) in (1..).zip([full(message("x")), streaming]) {
            let mut request = call("Unary", body);
            request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("200m"));

            let mut sending = Box::pin(client.send_request(request));
            tokio::select! {
                _ = &mut sending => panic!("nobody answers it"),
                () = eventually("the application is asked", || busy.get() == 1) => {}
            }
            let expired = tokio::time::timeout(Duration::from_millis(200), sending).await;

            assert!(expired.is_err());
            let since = Instant::now();
            eventually("the application is told", || busy.get() == 0).await;
            assert!(since.elapsed() < QUICKLY, "{:?}", since.elapsed());
            assert_eq!(*told.borrow(), "200m");
            eventually("it is recorded", || shop.orders.refused("client_gone") == number).await;
            eventually("on both sides", || shop.web.refused("client_gone") == number).await;
        }
        drop(open);
    });
}

#[test]
fn a_stream_that_is_cancelled_in_the_middle_of_its_answer_ends_at_the_application() {
    run(async {
        let busy = Rc::new(Cell::new(false));
        let state = Rc::clone(&busy);
        let shop = Shop::open(Protocol::Grpc, move |stream| {
            let state = Rc::clone(&state);
            http2(stream, move |_: Request<Incoming>| {
                let (feed, body) = fed();
                let state = Rc::clone(&state);
                state.set(true);
                spawn_local(async move {
                    feed.send(Frame::data(message("first"))).unwrap();
                    // Says nothing more, and is told all the same.
                    feed.closed().await;
                    state.set(false);
                });
                async move { Response::new(body) }
            })
        })
        .await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let answer = client.send_request(call("List", full(message("x")))).await.unwrap();
        let mut answer = answer.into_body();
        answer.frame().await.unwrap().unwrap();

        drop(answer);

        let since = Instant::now();
        eventually("the application is told", || !busy.get()).await;
        assert!(since.elapsed() < QUICKLY, "{:?}", since.elapsed());
        for pod in [&shop.web, &shop.orders] {
            eventually("it is recorded", || pod.refused("client_gone") == 1).await;
        }
    });
}
