//! Opaque streams, and bytes that are not what the port says.

use douane_proto::mesh::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    apps::{greet_and_echo, http1, mirror, raw},
    pods::{Shop, eventually, run, vip},
};

#[test]
fn a_server_that_speaks_first_is_heard_and_half_closing_keeps_the_other_half() {
    run(async {
        for protocol in [Protocol::Tcp, Protocol::Undeclared] {
            let shop = Shop::open(protocol, greet_and_echo).await;
            let mut stream = shop.web.connect(vip()).await;
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(&greeting, b"hello ");

            let sent = vec![9; 300_000];
            let (mut read, mut write) = stream.split();
            let mut told = Vec::new();
            let sending = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let (_, ended) = tokio::join!(sending, read.read_to_end(&mut told));

            ended.unwrap();
            assert!(told == sent, "{protocol:?}: {} of {}", told.len(), sent.len());
        }
    });
}

#[test]
fn connections_of_applications_share_one_connection_between_the_sidecars() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;

        for _ in 0..20 {
            let mut stream = shop.web.connect(vip()).await;
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).await.unwrap();
        }

        assert_eq!(shop.web.outbound.open_lines(), [1]);
    });
}

#[test]
fn http_on_an_undeclared_port_is_http() {
    run(async {
        let shop = Shop::open(Protocol::Undeclared, |stream| http1(stream, mirror)).await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, b"GET /x HTTP/1.1\r\nHost: orders\r\n\r\n", "\r\n\r\n").await;

        assert!(told.to_lowercase().contains("x-told-x-forwarded-client-cert"), "{told}");
    });
}

#[test]
fn other_bytes_on_a_port_declared_http_are_refused() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let mut stream = shop.web.connect(vip()).await;

        let told = raw(&mut stream, b"\x00\x01\x02\x03", "").await;

        assert_eq!(told, "");
        eventually("it is counted", || shop.web.metrics().contains("http_needed")).await;
    });
}

#[test]
fn plaintext_and_foreign_addresses_and_own_ports_are_refused() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        for (destination, bytes, label) in [
            (shop.pod(), &b"GET / HTTP/1.1\r\n\r\n"[..], "plaintext"),
            ("127.0.9.9:80".parse().unwrap(), b"", "not_our_address"),
            ("127.0.2.1:15006".parse().unwrap(), b"", "own_port"),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, source) = listener.accept().await.unwrap();
            client.write_all(bytes).await.unwrap();

            shop.orders.inbound.connection(stream, source, destination).await;

            assert_eq!(raw(&mut client, b"", "").await, "");
            assert!(shop.orders.metrics().contains(label), "{label}");
        }
    });
}

#[test]
fn a_peer_that_is_not_the_expected_one_is_refused() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        shop.orders.identity.send_replace(shop.ca.identity("someone-else", 1));
        let mut stream = shop.web.connect(vip()).await;

        assert_eq!(raw(&mut stream, b"secret", "").await, "");

        eventually("it is counted", || shop.web.metrics().contains("peer_handshake_failed")).await;
    });
}
