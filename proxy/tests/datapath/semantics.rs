//! What HTTP/1 promises between client and server, kept through two sidecars, and through one to a server without.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use douane_proto::mesh::{Port, Protocol};
use douane_proxy::config::Limits;
use http::Request;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{
    apps::{echo_stream, fed, http1, mirror, raw},
    pods::{Shop, eventually, run, vip},
};

/// An application, behind a sidecar and without one: the addresses that lead to it.
async fn both<Served: Future<Output = ()> + 'static>(
    limits: Limits,
    serve: impl Fn(TcpStream) -> Served + Clone + 'static,
) -> (Shop, [SocketAddr; 2]) {
    let shop = Shop::open_with(limits, Protocol::Http1, serve.clone()).await;
    let listener = TcpListener::bind("127.0.3.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream));
        }
    });
    let at: SocketAddr = "10.96.0.9:80".parse().unwrap();
    let port = Port { number: 80, protocol: Protocol::Http1, name: String::new() };
    shop.web.learns_plain_service(at.ip(), port, &[plain]);
    (shop, [vip(), at])
}

/// Reads heads of requests without bodies, and answers each with the bytes that `answer` makes of it.
async fn answers(mut stream: TcpStream, answer: impl Fn(&str) -> String) {
    let (mut heads, mut bytes) = (String::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        heads.push_str(&String::from_utf8_lossy(&bytes[..read]));
        while let Some((head, rest)) = heads.split_once("\r\n\r\n") {
            stream.write_all(answer(head).as_bytes()).await.unwrap();
            heads = rest.to_owned();
        }
    }
}

fn ask(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: orders\r\n\r\n").into_bytes()
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    run(async {
        let app = |stream| {
            http1(stream, |request: Request<_>| async move {
                // The first takes longest.
                if request.uri().path() == "/1" {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                mirror(request).await
            })
        };
        let (shop, ways) = both(Limits::default(), app).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;
            let requests = b"GET /1 HTTP/1.1\r\nHost: orders\r\n\r\n\
                POST /2 HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                POST /3 HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\n\r\nthree\
                GET /4 HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";

            let told = raw(&mut stream, requests, "").await.to_lowercase();

            let marks = ["get /1 ", "post /2 ", "\r\n\r\ntwo", "post /3 ", "\r\n\r\nthree", "get /4 "];
            let places: Vec<_> = marks.iter().map(|mark| told.find(mark)).collect();
            assert!(places.is_sorted() && places[0].is_some(), "{to}: {places:?} {told}");
            assert_eq!(told.matches("http/1.1 200 ok\r\n").count(), 4, "{told}");
        }
    });
}

#[test]
fn a_chunked_body_is_chunked_in_both_directions() {
    run(async {
        let (shop, ways) = both(Limits::default(), |stream| http1(stream, echo_stream)).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;

            let told = raw(
                &mut stream,
                b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "\r\nhello\r\n",
            )
            .await;
            assert!(told.to_lowercase().contains("\r\ntransfer-encoding: chunked\r\n"), "{told}");
            let told = raw(&mut stream, b"6;x=y\r\n world\r\n", "\r\n world\r\n").await;
            assert_eq!(told, "6\r\n world\r\n");
            // And the connection goes on.
            let told =
                raw(&mut stream, b"0\r\n\r\nGET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n", "")
                    .await;
            assert!(told.starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{told}");
        }
    });
}

#[test]
fn answers_without_a_body_tell_its_length_and_the_connection_goes_on() {
    run(async {
        let app = |stream| {
            answers(stream, |head| {
                let answer = match head.split(' ').nth(1) {
                    Some("/chunked") => "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    Some("/length") => "200 OK\r\nContent-Length: 5000\r\n\r\n",
                    Some("/204") => "204 No Content\r\n\r\n",
                    Some("/304") => "304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5000\r\n\r\n",
                    _ => "200 OK\r\nContent-Length: 4\r\n\r\nlast",
                };
                format!("HTTP/1.1 {answer}")
            })
        };
        let (shop, ways) = both(Limits::default(), app).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;
            for (method, path, length) in [
                ("HEAD", "/length", Some("5000")),
                ("HEAD", "/chunked", None),
                ("GET", "/204", None),
                // A 304 may leave its length out (RFC 9110 15.4.5).
                ("GET", "/304", None),
            ] {
                let told = raw(&mut stream, &ask(method, path), "\r\n\r\n").await.to_lowercase();

                let (_, body) = told.split_once("\r\n\r\n").unwrap();
                assert_eq!(body, "", "{to} {path}: {told}");
                let told_length = told.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
                assert_eq!(told_length, length, "{to} {path}: {told}");
                assert!(!told.contains("connection: close"), "{told}");
            }
            let told = raw(&mut stream, &ask("GET", "/"), "last").await;
            assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("\r\n\r\nlast"), "{told}");
            // Where the answer had none, nobody takes that for a client that went away.
            assert_eq!(shop.web.refused("client_gone"), 0);
        }
    });
}

#[test]
fn who_expects_to_be_told_to_continue_is_told_and_its_body_arrives() {
    run(async {
        let (shop, ways) = both(Limits::default(), |stream| http1(stream, mirror)).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;

            let told = raw(
                &mut stream,
                b"POST / HTTP/1.1\r\nHost: orders\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
                "\r\n\r\n",
            )
            .await;
            assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
            let told = raw(&mut stream, b"hello", "hello").await;

            assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("\r\n\r\nhello"), "{told}");
            // And the connection goes on.
            let told = raw(&mut stream, &ask("GET", "/b"), "\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.contains("GET /b"), "{told}");
        }
    });
}

#[test]
fn an_application_that_refuses_before_the_body_is_heard_whole_by_who_expected_to_continue() {
    const PAGE: usize = 20_000;
    run(async {
        for refusal in ["417 Expectation Failed", "403 Forbidden"] {
            let app = move |mut stream: TcpStream| async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap() == 0 {
                        return;
                    }
                }
                let head =
                    format!("HTTP/1.1 {refusal}\r\nConnection: close\r\nContent-Length: {PAGE}\r\n\r\n");
                let _ = stream.write_all((head + &"n".repeat(PAGE)).as_bytes()).await;
            };
            let (shop, ways) = both(Limits::default(), app).await;
            for to in ways {
                let (mut read, mut write) = shop.web.connect(to).await.into_split();
                write
                    .write_all(b"POST / HTTP/1.1\r\nHost: orders\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n")
                    .await
                    .unwrap();
                spawn_local(async move {
                    let _ = write.write_all(&vec![b'u'; 5_000_000]).await;
                });
                let mut told = Vec::new();

                let _ = read.read_to_end(&mut told).await;

                let told = String::from_utf8_lossy(&told);
                let told = told.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
                assert!(
                    told.starts_with(&format!("HTTP/1.1 {refusal}\r\n")),
                    "{to}: {}",
                    &told[..told.len().min(200)]
                );
                assert_eq!(told.split_once("\r\n\r\n").map(|(_, page)| page.len()), Some(PAGE), "{to}");
            }
        }
    });
}

#[test]
fn bodies_that_come_slower_than_any_time_limit_of_heads_are_not_cut() {
    run(async {
        // Half of what the body takes, and long for a machine that stands still for a moment.
        let short = Duration::from_millis(600);
        let limits = Limits { head: short, idle: short, ..Limits::default() };
        let (shop, ways) = both(limits, |stream| http1(stream, echo_stream)).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;
            raw(&mut stream, b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 12\r\n\r\n", "\r\n\r\n")
                .await;
            for byte in *b"twelve bytes" {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let told = raw(&mut stream, &[byte], "\r\n").await;
                assert!(told.starts_with("1\r\n"), "{to}: {told}");
            }
        }
    });
}

#[test]
fn an_http10_client_keeps_its_connection_only_where_it_asks_to() {
    run(async {
        let (shop, ways) = both(Limits::default(), |stream| http1(stream, mirror)).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;
            for word in ["one", "two"] {
                let request = format!(
                    "POST / HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n{word}"
                );
                let told = raw(&mut stream, request.as_bytes(), word).await.to_lowercase();
                assert!(told.starts_with("http/1.0 200"), "{to}: {told}");
                assert!(told.contains("\r\nconnection: keep-alive\r\n"), "{to}: {told}");
                assert!(told.contains("\r\ncontent-length: 3\r\n"), "{to}: {told}");
            }
            let told = raw(&mut stream, b"GET / HTTP/1.0\r\nHost: orders\r\n\r\n", "").await;
            assert!(
                told.starts_with("HTTP/1.0 200") && !told.to_lowercase().contains("keep-alive"),
                "{told}"
            );
        }
    });
}

#[test]
fn reason_phrases_and_interim_answers_are_dropped() {
    run(async {
        let app = |stream| {
            answers(stream, |_| {
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                 HTTP/1.1 200 Fine By Me\r\nContent-Length: 4\r\n\r\nword"
                    .to_owned()
            })
        };
        let (shop, ways) = both(Limits::default(), app).await;
        for to in ways {
            let mut stream = shop.web.connect(to).await;
            for _ in 0..2 {
                let told = raw(&mut stream, &ask("GET", "/"), "word").await;
                assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && !told.contains("Link"), "{to}: {told}");
            }
        }
    });
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_an_answer_frees_the_application_and_it_is_recorded() {
    run(async {
        let busy = Rc::new(Cell::new(0));
        let counted = Rc::clone(&busy);
        let app = move |stream| {
            let counted = Rc::clone(&counted);
            http1(stream, move |_: Request<_>| {
                let (feed, body) = fed();
                let counted = Rc::clone(&counted);
                counted.set(counted.get() + 1);
                spawn_local(async move {
                    while feed.send(Frame::data(Bytes::from_static(b"tick "))).is_ok() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    counted.set(counted.get() - 1);
                });
                async move { http::Response::new(body) }
            })
        };
        let (shop, ways) = both(Limits::default(), app).await;
        for (number, to) in (1..).zip(ways) {
            let mut stream = shop.web.connect(to).await;
            raw(&mut stream, &ask("GET", "/"), "tick ").await;
            eventually("it still works on it", || busy.get() == 1).await;

            drop(stream);

            eventually("the application is told", || busy.get() == 0).await;
            eventually("it is recorded", || shop.web.refused("client_gone") == number).await;
            eventually("by the receiver as well", || shop.orders.refused("client_gone") == 1).await;
        }
    });
}
