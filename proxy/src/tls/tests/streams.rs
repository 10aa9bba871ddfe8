//! Bytes on an established session: whole both ways, closed by halves, flushed although nobody sleeps.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Builder,
};

use super::{Ca, ORDERS, WEB, corked, id, mtls, pair, runtime, sockets, uncorked};
use crate::tls::{cork::LONGEST_WAIT, flush_overdue, park_flush};

const MANY: usize = 10 * 1024 * 1024;

async fn ten_megabytes_each_way() {
    let (server, client) = pair().await;
    let (mut server_read, mut server_write) = tokio::io::split(server);
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let sent: Vec<u8> = (0..MANY).map(|i| (i * 31 % 251) as u8).collect();
    let send_up = async {
        client_write.write_all(&sent).await.unwrap();
        client_write.shutdown().await.unwrap();
    };
    let send_down = async {
        server_write.write_all(&sent).await.unwrap();
        server_write.shutdown().await.unwrap();
    };
    // Reads in small pieces, and gives way between them: the socket fills up meanwhile.
    let slowly = async {
        let mut received = Vec::new();
        let mut piece = [0; 777];
        loop {
            match server_read.read(&mut piece).await.unwrap() {
                0 => break received,
                count => received.extend_from_slice(&piece[..count]),
            }
            tokio::task::yield_now().await;
        }
    };
    let mut down = Vec::new();
    let (up, _, (), ()) = tokio::join!(slowly, client_read.read_to_end(&mut down), send_up, send_down);
    assert!(up == sent && down == sent, "{} up, {} down", up.len(), down.len());
}

#[test]
fn ten_megabytes_arrive_whole_both_ways_past_a_slow_reader() {
    corked(ten_megabytes_each_way());
}

#[test]
fn ten_megabytes_arrive_whole_without_the_park_hook() {
    uncorked(ten_megabytes_each_way());
}

async fn writes_then_closes() {
    let (mut server, mut client) = pair().await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    // The other half still works.
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    assert!(client.write_all(b"more").await.is_err());
}

#[test]
fn what_was_gathered_goes_before_the_close_and_the_other_half_stays_open() {
    corked(writes_then_closes());
    uncorked(writes_then_closes());
}

#[test]
fn flushed_bytes_leave_although_the_queue_never_empties() {
    corked(async {
        let (mut server, mut client) = pair().await;
        tokio::task::spawn_local(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        // Keeps the queue full by streams too, as other connections of a busy sidecar do.
        let (other_server, other_client) = pair().await;
        tokio::task::spawn_local(async move {
            let (mut read, mut write) = tokio::io::split(other_client);
            let _server = other_server;
            loop {
                write.write_all(b"x").await.unwrap();
                futures_util::poll!(Box::pin(read.read_u8())).is_ready();
                tokio::task::yield_now().await;
            }
        });
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    });
}

#[test]
fn gathered_bytes_wait_for_the_bound_and_no_longer_while_the_queue_never_empties() {
    let runtime = runtime(Builder::new_current_thread().on_thread_park(park_flush).start_paused(true));
    runtime.block_on(async {
        let (mut server, mut client) = pair().await;
        // From now on the runtime never sleeps, and no time passes but what the test lets pass.
        tokio::task::spawn_local(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        tokio::task::yield_now().await;
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = [0; 4];
        tokio::select! {
            biased;
            _ = server.read_exact(&mut heard) => panic!("it left before its time"),
            () = async { for _ in 0..1000 { tokio::task::yield_now().await } } => {}
        }

        tokio::time::advance(LONGEST_WAIT + Duration::from_micros(1)).await;
        flush_overdue();
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    });
}

#[test]
fn a_flush_that_is_followed_by_a_drop_still_arrives() {
    corked(async {
        let (mut server, mut client) = pair().await;
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(server.read(&mut heard).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_writer_learns_that_the_peer_is_gone() {
    corked(async {
        let (server, mut client) = pair().await;
        drop(server);
        let piece = vec![0; 64 * 1024];
        let failed = async {
            loop {
                if client.write_all(&piece).await.is_err() || client.flush().await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), failed).await.unwrap();
    });
}

#[test]
fn what_comes_together_with_the_end_of_the_handshake_is_read() {
    uncorked(async {
        let ca = Ca::new("cluster.local");
        let (server_io, client_io) = sockets().await;
        let (server, client, expected) = (mtls(ca.identity(ORDERS)), mtls(ca.identity(WEB)), id(ORDERS));
        // Nothing waits between the client's Finished and its first bytes: the server reads both at once.
        let hasty = async {
            let (mut client, _) = client.connect(client_io, &expected).await.unwrap();
            client.write_all(b"first").await.unwrap();
            client.flush().await.unwrap();
            client
        };

        let (accepted, _client) = tokio::join!(server.accept(server_io), hasty);

        let (mut heard, (mut server, _)) = ([0; 5], accepted.unwrap());
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"first");
    });
}

#[test]
fn what_was_read_before_the_handshake_is_part_of_it() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let (mut server_io, client_io) = sockets().await;
        let (server, client, expected) = (mtls(ca.identity(ORDERS)), mtls(ca.identity(WEB)), id(ORDERS));
        let looks_first = async {
            let mut first = [0; 100];
            server_io.read_exact(&mut first).await.unwrap();
            server.accept_after(&first, server_io).await
        };

        let (accepted, connected) = tokio::join!(looks_first, client.connect(client_io, &expected));

        let ((mut server, _), (mut client, _)) = (accepted.unwrap(), connected.unwrap());
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    });
}
