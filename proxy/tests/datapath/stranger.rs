//! A peer that obeys no sidecar: it has a certificate of its own and says what it likes on a `douane/1` connection.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use douane_proto::{mesh::Protocol, wire};
use douane_proxy::tls::Mtls;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::spawn_local,
};

use crate::{
    apps::{AnyBody, full, greet_and_echo, http1, mirror},
    pods::{Shop, eventually, run, vip},
};

pub(crate) const LONG: Duration = Duration::from_secs(3600);
/// Of a certificate that ends while a test waits, and not before a slow machine has shown it.
pub(crate) const SHORT: Duration = Duration::from_secs(5);

/// A connection to the pod behind `shop`, as a workload called `stranger`, whose certificate ends after `life`.
pub(crate) async fn stranger(shop: &Shop, life: Duration) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(shop.pod()).await.unwrap();
    shake_hands(shop, socket, life).await
}

/// The same under a name of its own.
pub(crate) async fn stranger_called(shop: &Shop, name: &str) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(shop.pod()).await.unwrap();
    shake_hands_as(shop, socket, name, LONG).await
}

/// The same on a connection that is already there.
pub(crate) async fn shake_hands(shop: &Shop, socket: TcpStream, life: Duration) -> SendRequest<Bytes> {
    shake_hands_as(shop, socket, "stranger", life).await
}

async fn shake_hands_as(shop: &Shop, socket: TcpStream, name: &str, life: Duration) -> SendRequest<Bytes> {
    let (_, identity) = watch::channel(shop.ca.passing_identity(name, 1, life));
    let orders = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
    let (io, _) = Mtls::new(identity).connect(socket, &orders).await.unwrap();
    let (send, connection) = h2::client::handshake(io).await.unwrap();
    spawn_local(async move {
        let _ = connection.await;
    });
    send
}

pub(crate) fn http11(method: Method, path: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(format!("http://orders{path}"));
    request.header("x-douane-http", "1.1").body(()).unwrap()
}

pub(crate) async fn open(
    peer: &SendRequest<Bytes>,
    request: Request<()>,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut peer = peer.clone().ready().await.unwrap();
    peer.send_request(request, false).unwrap()
}

async fn ask(
    peer: &SendRequest<Bytes>,
    request: Request<()>,
    body: &'static [u8],
) -> Result<Response<RecvStream>, h2::Error> {
    let (answer, mut stream) = open(peer, request).await;
    stream.send_data(Bytes::from_static(body), true)?;
    answer.await
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

fn deny_everything() -> wire::Policy {
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "no".to_owned(),
        action: wire::Action::Deny.into(),
        rules: vec![wire::Rule::default()],
        ..Default::default()
    }
}

#[test]
fn http_on_a_port_declared_opaque_is_refused_in_every_version() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, |stream| http1(stream, mirror)).await;
        let peer = stranger(&shop, LONG).await;
        let http2 = Request::post("http://orders/").body(()).unwrap();

        for request in [http11(Method::POST, "/"), http2] {
            let answer = ask(&peer, request, b"x").await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        }
        shop.orders.has_refused("opaque_needed", 2).await;
    });
}

#[test]
fn an_application_that_speaks_no_http2_sees_no_byte_of_such_a_request() {
    run(async {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&heard);
        let shop = Shop::open(Protocol::Http1, move |mut stream| {
            let log = Rc::clone(&log);
            async move {
                let mut chunk = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                    log.borrow_mut().extend_from_slice(&chunk[..read]);
                    // The preface is no request that it knows.
                    if log.borrow().len() > 100 {
                        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                        return;
                    }
                }
            }
        })
        .await;
        let peer = stranger(&shop, LONG).await;
        let request = Request::post("http://orders/").body(()).unwrap();

        let asking = spawn_local(async move {
            ask(&peer, request, b"\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n").await
        });
        eventually("it hears something", || heard.borrow().len() >= "PRI * HTTP/2.0".len()).await;
        let asked = tokio::time::timeout(Duration::from_millis(500), asking).await;

        assert!(
            asked.is_err() || asked.is_ok_and(|answer| answer.unwrap().unwrap().status().is_server_error())
        );
        let heard = String::from_utf8_lossy(&heard.borrow()).into_owned();
        assert!(heard.starts_with("PRI * HTTP/2.0") && !heard.contains("secret"), "{heard}");
    });
}

#[test]
fn a_body_reaches_the_application_also_where_the_method_usually_has_none() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let peer = stranger(&shop, LONG).await;

        for method in [Method::GET, Method::DELETE, Method::POST] {
            let answer = ask(&peer, http11(method.clone(), "/"), b"word").await.unwrap();
            assert_eq!(read(&mut answer.into_body()).await.unwrap(), b"word", "{method}");
        }
    });
}

#[test]
fn a_cookie_in_pieces_is_one_for_an_http1_application() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let peer = stranger(&shop, LONG).await;
        let mut request = http11(Method::GET, "/");
        for piece in ["a=1", "b=2"] {
            request.headers_mut().append("cookie", piece.parse().unwrap());
        }

        let answer = ask(&peer, request, b"").await.unwrap();

        let told: Vec<_> = answer.headers().get_all("x-told-cookie").iter().collect();
        assert_eq!(told, ["a=1; b=2"]);
    });
}

#[test]
fn a_cancelled_request_is_cancelled_at_the_application() {
    struct Leaves(Rc<Cell<u32>>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    run(async {
        let busy = Rc::new(Cell::new(0));
        let counted = Rc::clone(&busy);
        let shop = Shop::open(Protocol::Http1, move |stream| {
            let counted = Rc::clone(&counted);
            http1(stream, move |_: Request<Incoming>| {
                counted.set(counted.get() + 1);
                let leaves = Leaves(Rc::clone(&counted));
                async move {
                    let _leaves = leaves;
                    std::future::pending::<Response<AnyBody>>().await
                }
            })
        })
        .await;
        let peer = stranger(&shop, LONG).await;
        let mut peer = peer.ready().await.unwrap();
        let (answer, stream) = peer.send_request(http11(Method::GET, "/"), true).unwrap();
        eventually("the application works", || busy.get() == 1).await;

        // Resets the stream.
        drop((answer, stream));

        eventually("the application is told", || busy.get() == 0).await;
        eventually("and it is recorded", || shop.orders.metrics().contains("client_gone")).await;
    });
}

#[test]
fn an_expired_certificate_gets_no_new_stream_and_those_in_flight_go_on() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let peer = stranger(&shop, SHORT).await;
        let connect = || {
            let mut request = Request::builder()
                .method(Method::CONNECT)
                .uri(format!("http://{}/", shop.pod()))
                .body(())
                .unwrap();
            request.extensions_mut().insert(h2::ext::Protocol::from_static("douane-tcp"));
            request
        };
        let (answer, mut stream) = open(&peer, connect()).await;
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello ");

        // Clocks of certificates count whole seconds.
        let refused = async {
            loop {
                let Ok(mut ready) = peer.clone().ready().await else { return };
                let Ok((answer, _stream)) = ready.send_request(connect(), false) else { return };
                if answer.await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        refused.await;

        stream.send_data(Bytes::from_static(b"still here"), true).unwrap();
        assert_eq!(read(&mut body).await.unwrap(), b"still here");
    });
}

#[test]
fn a_line_to_a_peer_whose_certificate_has_ended_takes_no_new_request() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        shop.orders.identity.send_replace(shop.ca.passing_identity("orders", 1, SHORT));
        let mut first = shop.web.connect(vip()).await;
        let mut greeting = [0; 6];
        first.read_exact(&mut greeting).await.unwrap();

        // Whoever has taken the place over meanwhile must prove itself.
        shop.orders.identity.send_replace(shop.ca.identity("someone-else", 2));
        let refused = async {
            while let Ok(_greeted) = shop.web.connect(vip()).await.read_exact(&mut greeting).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        refused.await;

        eventually("it is counted", || shop.web.refused("peer_handshake_failed") > 0).await;
        first.write_all(b"still here").await.unwrap();
        let mut word = [0; 10];
        first.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"still here");
    });
}

#[test]
fn an_upload_behind_an_early_answer_ends_with_a_law_that_forbids_it() {
    run(async {
        let (ended, uploading) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (end, count) = (Rc::clone(&ended), Rc::clone(&uploading));
        let shop = Shop::open(Protocol::Http2, move |stream| {
            let (end, count) = (Rc::clone(&end), Rc::clone(&count));
            crate::apps::http2(stream, move |request: Request<Incoming>| {
                let (end, count) = (Rc::clone(&end), Rc::clone(&count));
                spawn_local(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(frame)) = body.frame().await {
                        count.set(count.get() + frame.into_data().map_or(0, |data| data.len()));
                    }
                    end.set(true);
                });
                async { Response::new(full("enough")) }
            })
        })
        .await;
        let peer = stranger(&shop, LONG).await;
        let (answer, mut stream) = open(&peer, Request::post("http://orders/").body(()).unwrap()).await;
        stream.send_data(Bytes::from_static(b"one"), false).unwrap();
        assert_eq!(read(&mut answer.await.unwrap().into_body()).await.unwrap(), b"enough");
        eventually("the upload goes on", || uploading.get() == 3).await;
        assert!(!ended.get());

        shop.orders.rule(vec![deny_everything()]);

        eventually("the upload is cut", || ended.get()).await;
    });
}

#[test]
fn what_is_dropped_at_the_end_of_draining_is_reset_and_no_clean_end() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let mut client = shop.web.connect(vip()).await;
        let mut greeting = [0; 6];
        client.read_exact(&mut greeting).await.unwrap();

        shop.web.shutdown.forced.cancel();
        shop.orders.shutdown.forced.cancel();

        let end = client.read(&mut greeting).await.map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    });
}
