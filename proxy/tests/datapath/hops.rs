//! What an HTTP hop owes its neighbours: the client's connection and the application's live apart, an answer ends where it
//! should, and who gives up is heard at the other end.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    apps::{client2, fed, full, http1, http2, mirror, raw},
    pods::{Shop, eventually, run, vip},
};

/// A shop whose application counts the connections that it is given.
async fn counting(protocol: Protocol) -> (Shop, Rc<Cell<u32>>) {
    let met = Rc::new(Cell::new(0));
    let counted = Rc::clone(&met);
    let shop = Shop::open(protocol, move |stream| {
        counted.set(counted.get() + 1);
        http1(stream, mirror)
    })
    .await;
    (shop, met)
}

#[test]
fn clients_that_close_leave_the_pooled_connections_behind_them_open() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Undeclared] {
            let (shop, met) = counting(protocol).await;
            for ending in ["Connection: close", "Connection: x, CLOSE"] {
                for _ in 0..3 {
                    let mut stream = shop.web.connect(vip()).await;
                    let request = format!("GET /x HTTP/1.1\r\n{ending}\r\nHost: orders\r\n\r\n");

                    // Read to the end: the sidecar closes, as it was asked to.
                    let told = raw(&mut stream, request.as_bytes(), "").await;

                    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
                    let told = told.to_lowercase();
                    assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
                    assert!(!told.contains("x-told-connection"), "{told}");
                }
            }
            assert_eq!(shop.web.outbound.open_lines(), [1], "{protocol:?}");
            assert_eq!(met.get(), 1, "{protocol:?}");
        }
    });
}

#[test]
fn an_application_that_closes_does_not_close_the_clients_connection() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |mut stream| async move {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 Whatever You Say\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        })
        .await;
        let mut stream = shop.web.connect(vip()).await;
        for _ in 0..3 {
            let told = raw(&mut stream, b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n", "\r\n\r\nok").await;
            assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
            assert!(!told.to_lowercase().contains("connection: close"), "{told}");
        }
    });
}

/// Counts those of an application's calls that still run.
struct Running(Arc<AtomicU32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn a_grpc_deadline_reaches_the_application_and_a_call_that_runs_out_is_cancelled_there() {
    run(async {
        let busy = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&busy);
        let shop = Shop::open(Protocol::Grpc, move |stream| {
            let counted = Arc::clone(&counted);
            http2(stream, move |request: Request<Incoming>| {
                // Says once how long it may take, then nothing for ever.
                assert_eq!(request.headers()["grpc-timeout"], "250m");
                counted.fetch_add(1, Ordering::Relaxed);
                let running = Running(Arc::clone(&counted));
                let (feed, body) = fed();
                feed.send(Frame::data(Bytes::from("begins"))).unwrap();
                let body = body.map_frame(move |frame| {
                    // Owned by the answer: gone with it.
                    let _ = (&running, &feed);
                    frame
                });
                async move { Response::new(body.boxed_unsync()) }
            })
        })
        .await;
        let mut client = client2(shop.web.connect(vip()).await).await;
        let call = || {
            Request::post("http://orders/shop.Inventory/Watch")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-timeout", "250m")
                .body(full(""))
                .unwrap()
        };
        for _ in 0..3 {
            let mut answer = client.send_request(call()).await.unwrap().into_body();
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "begins");
            assert_eq!(busy.load(Ordering::Relaxed), 1);
            // What a gRPC client does when its time is over: it resets the stream.
            let over = tokio::time::timeout(Duration::from_millis(250), answer.frame()).await;
            assert!(over.is_err(), "nothing more comes");
            drop(answer);

            eventually("the application is told", || busy.load(Ordering::Relaxed) == 0).await;
        }
        assert_eq!(shop.web.outbound.open_lines(), [1], "only the stream ended");
    });
}

#[test]
fn a_server_that_ends_its_side_still_hears_the_client() {
    run(async {
        for protocol in [Protocol::Tcp, Protocol::Undeclared] {
            let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
            let shop = Shop::open(protocol, move |mut stream: TcpStream| {
                let told = told.clone();
                async move {
                    stream.write_all(b"that is all").await.unwrap();
                    stream.shutdown().await.unwrap();
                    let mut rest = Vec::new();
                    let ended = stream.read_to_end(&mut rest).await.map_err(|error| error.kind());
                    told.send((rest.len(), ended.is_ok())).unwrap();
                }
            })
            .await;
            let mut stream = shop.web.connect(vip()).await;
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"that is all");

            stream.write_all(&vec![1; 200_000]).await.unwrap();
            stream.shutdown().await.unwrap();

            assert_eq!(heard.recv().await, Some((200_000, true)), "{protocol:?}");
        }
    });
}

#[test]
fn a_stream_that_a_server_resets_is_reset_at_the_client() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, |mut stream: TcpStream| async move {
            stream.write_all(b"x").await.unwrap();
            let _ = stream.read_u8().await;
            stream.set_zero_linger().unwrap();
        })
        .await;
        let mut stream = shop.web.connect(vip()).await;
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        stream.write_all(b"y").await.unwrap();

        let end = stream.read_u8().await.map_err(|error| error.kind());

        assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "no clean end that was none");
    });
}
