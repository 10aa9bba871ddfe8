//! A runtime that never sleeps: what is gathered for a peer leaves all the same, whatever keeps the runtime busy.

use std::{net::SocketAddr, time::Duration};

use douane_proto::mesh::{Port, Protocol};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::{spawn_local, yield_now},
};

use crate::{
    apps::{http1, mirror, raw},
    pods::{Shop, run, vip},
};

const PLAIN: &str = "10.96.0.9:80";
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";

/// The queue of the runtime is never empty from now on.
fn never_sleeps() {
    spawn_local(async {
        loop {
            yield_now().await;
        }
    });
}

async fn before_plain_servers(protocol: Protocol) -> Shop {
    let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
    let listener = TcpListener::bind("127.0.3.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if protocol == Protocol::Http1 {
                spawn_local(http1(stream, mirror));
                continue;
            }
            spawn_local(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let at: SocketAddr = PLAIN.parse().unwrap();
    let port = Port { number: at.port(), protocol, name: String::new() };
    shop.web.learns_plain_service(at.ip(), port, &[plain]);
    shop
}

/// Before the ping of a connection at rest would carry along what waits.
async fn is_answered(shop: &Shop) {
    let mut stream = shop.web.connect(vip()).await;
    let told = tokio::time::timeout(Duration::from_secs(10), raw(&mut stream, ASK, "\r\n\r\n")).await;
    assert!(told.as_ref().is_ok_and(|told| told.starts_with("HTTP/1.1 200")), "{told:?}");
}

#[test]
fn a_request_is_answered_while_bytes_in_plaintext_never_rest() {
    run(async {
        let shop = before_plain_servers(Protocol::Tcp).await;
        let mut bytes = shop.web.connect(PLAIN.parse().unwrap()).await;
        never_sleeps();
        spawn_local(async move {
            loop {
                bytes.write_all(b"x").await.unwrap();
                bytes.read_u8().await.unwrap();
            }
        });

        is_answered(&shop).await;
    });
}

#[test]
fn a_request_is_answered_while_requests_in_plaintext_never_rest() {
    run(async {
        let shop = before_plain_servers(Protocol::Http1).await;
        let mut requests = shop.web.connect(PLAIN.parse().unwrap()).await;
        never_sleeps();
        spawn_local(async move {
            loop {
                raw(&mut requests, b"GET / HTTP/1.1\r\nHost: plain\r\n\r\n", "\r\n\r\n").await;
            }
        });

        is_answered(&shop).await;
    });
}
