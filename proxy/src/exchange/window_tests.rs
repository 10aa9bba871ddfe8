//! How windows grow and shrink: by a real connection on a slow link, and as pure decisions.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::{
    exchange::meter::{End, Metered},
    net::reading::Reading,
};

const FAR: Duration = Duration::from_millis(20);
/// Beside other work not each connection has its round trips when it needs them.
const MOST_CONNECTIONS: usize = 20;

/// A link on which each byte travels for `FAR`, and as many at once as there are.
fn link() -> (DuplexStream, DuplexStream) {
    let ((near, a), (far, b)) = (duplex(64 << 20), duplex(64 << 20));
    let ((a_out, a_in), (b_out, b_in)) = (tokio::io::split(a), tokio::io::split(b));
    tokio::task::spawn_local(carry(a_out, b_in));
    tokio::task::spawn_local(carry(b_out, a_in));
    (near, far)
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (mut travels, mut ends) = (VecDeque::new(), false);
    while !ends || !travels.is_empty() {
        let mut read = vec![0; 1 << 20];
        let due = travels.front().map(|(due, _)| *due);
        tokio::select! {
            got = from.read(&mut read), if !ends => match got {
                Ok(0) | Err(_) => ends = true,
                Ok(count) => {
                    read.truncate(count);
                    travels.push_back((Instant::now() + FAR, read));
                }
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some((_, bytes)) = travels.pop_front() else { continue };
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Long enough for a connection to rest.
const PAUSE: Duration = Duration::from_secs(60);

/// Serves a client that sends `megabytes` on one stream; the sizes that the windows took.
async fn serve(megabytes: usize, told: impl FnMut(Size)) {
    serve_parts(&[megabytes << 20], told).await;
}

/// The same in parts of so many bytes, with a pause after each.
async fn serve_parts(parts: &[usize], mut told: impl FnMut(Size)) {
    let (near, far) = link();
    let client = async {
        let (mut send, connection) = h2::client::handshake(near).await.unwrap();
        tokio::task::spawn_local(connection);
        let (answer, mut stream) = send.send_request(http::Request::new(()), false).unwrap();
        for part in parts {
            crate::net::relay::send_all(&mut stream, vec![0; *part].into()).await.unwrap();
            if parts.len() > 1 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        stream.send_data(Bytes::new(), true).unwrap();
        answer.await.unwrap();
    };
    let server = async {
        let (io, meter) = Metered::new(far, End::Server);
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let mut connection = builder.handshake::<_, Bytes>(io).await.unwrap();
        let mut windows = Windows::new(connection.ping_pong().unwrap(), meter);
        loop {
            tokio::select! {
                size = windows.next() => {
                    let Ok(size) = size else { return };
                    windows.apply(size, &mut connection);
                    told(size);
                }
                next = connection.accept() => {
                    let Some(Ok((request, mut respond))) = next else { return };
                    tokio::task::spawn_local(async move {
                        let mut body = request.into_body();
                        let mut reading = Reading::default();
                        while let Some(Ok(bytes)) = poll_fn(|cx| reading.poll_data(&mut body, cx)).await {
                            body.flow_control().release_capacity(bytes.len()).unwrap();
                        }
                        respond.send_response(http::Response::new(()), true).unwrap();
                    });
                }
            }
        }
    };
    tokio::select! {
        () = server => {}
        () = client => {}
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build_local(Default::default()).unwrap();
    runtime.block_on(test);
}

#[test]
fn windows_grow_to_what_travels_in_a_round_trip_and_give_their_loan_back() {
    run(async {
        let mut streams = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            let mut sizes = Vec::new();
            serve(64, |size| sizes.push(size)).await;

            streams = sizes.iter().map(|size| size.stream >> 10).collect::<Vec<_>>();
            assert!([512, 1024, 2048, 4096].starts_with(&streams), "{streams:?}");
            assert_eq!(budget::held(), 0, "the connection has ended");
            if let Some(Size { connection, .. }) = sizes.get(3) {
                assert_eq!(*connection, 16 << 20);
                break;
            }
        }
        assert_eq!(streams.last(), Some(&4096), "{streams:?}");
    });
}

#[test]
fn windows_grow_no_further_than_the_budget_lends() {
    run(async {
        // Of this 85 % are lent: room for a connection's window of 4 MiB above the first.
        budget::fix(4 << 20);
        let (mut sizes, mut most) = (Vec::new(), 0);

        serve(32, |size| {
            sizes.push(size.stream >> 10);
            most = most.max(budget::held());
        })
        .await;

        assert_eq!(sizes, [512, 1024]);
        assert_eq!(most, 3 << 20);
    });
}

#[test]
fn windows_shrink_when_the_budget_is_tight() {
    run(async {
        budget::fix(64 << 20);
        let (mut sizes, mut crowd, mut is_crowded) = (Vec::new(), None, false);

        for _ in 0..MOST_CONNECTIONS {
            sizes.clear();
            serve(64, |size| {
                sizes.push(size.stream >> 10);
                // Others need it now.
                if size.stream == 2 << 20 {
                    crowd = Some(budget::hold(60 << 20));
                }
            })
            .await;
            // The crowd came, and not just in the last round.
            is_crowded = crowd.take().is_some();
            if is_crowded && sizes.len() > 3 {
                break;
            }
        }

        assert_eq!(sizes.get(..4), Some(&[512, 1024, 2048, 256][..]), "{sizes:?}");
        assert!(is_crowded);
        assert!(!sizes.contains(&4096), "{sizes:?}");
    });
}

#[test]
fn a_stream_that_paused_while_windows_shrank_goes_on() {
    run(async {
        // However much of its window the peer has not been told of when it pauses.
        for odd in (0..4096).step_by(256) {
            let (mut sizes, parts) = (Vec::new(), [(32 << 20) + (odd << 10), 8 << 20]);

            serve_parts(&parts, |size| sizes.push(size.stream >> 10)).await;

            assert!(!sizes.is_sorted(), "{odd}: they shrank: {sizes:?}");
        }
    });
}

#[test]
fn a_window_that_is_not_what_limits_stays_as_it_is() {
    assert_eq!(grown(STREAM_WINDOW, 100 << 10), None);
    assert_eq!(grown(STREAM_WINDOW, 200 << 10), Some(start(2 * STREAM_WINDOW)));
    assert_eq!(grown(MAX_STREAM_WINDOW, u64::MAX), None);
}

const MIB: u32 = 1 << 20;
const MOST: u32 = 16 * MIB;

fn start(stream: u32) -> Size {
    Size { stream, connection: Size::usual(stream) }
}

#[test]
fn a_connection_about_to_stand_still_grows_by_what_is_unread_and_shrinks_when_it_is_read() {
    let first = start(STREAM_WINDOW);
    assert_eq!(next_size(first, MIB / 2, MIB / 2, MOST), first);

    let grown = next_size(first, MIB / 8, MIB - MIB / 8, MOST);
    assert_eq!(grown, Size { connection: 2 * MIB - MIB / 8, ..first });

    // A little of it was read; then all.
    assert_eq!(next_size(grown, MIB + MIB / 8, MIB / 2 + MIB / 8, MOST), grown);
    assert_eq!(next_size(grown, 2 * MIB - MIB / 8, 0, MOST), first);
}

#[test]
fn as_many_streams_as_there_may_be_stand_still_and_there_is_room_for_one_more() {
    for (first, most) in [(256 << 10, 2), (256 << 10, 6), (256 << 10, 16), (1 << 20, 16), (4 << 20, 16)] {
        let (mut size, mut unread) = (start(first), 0);
        // Each new one fills the window that it has, as far as there is room.
        for _ in 0..MAX_STREAMS {
            size = next_size(size, size.connection - unread, unread, most * MIB);
            let open = size.connection - unread;
            assert!(open >= size.stream, "{most}: {size:?}, {unread}");
            unread += size.stream.min(open);
        }
        assert!(size.connection - unread >= LEAST_STREAM_WINDOW, "{most}: {size:?}, {unread}");
        assert!(size.connection <= most * MIB + LEAST + CONNECTION_WINDOW, "{most}: {size:?}");
    }
}

#[test]
fn where_the_budget_lends_nothing_streams_have_the_smallest_window_and_somebody_still_moves() {
    let shrunk = Size { stream: STREAM_WINDOW, connection: 5 * MIB };
    assert_eq!(next_size(start(MAX_STREAM_WINDOW), 12 * MIB, 4 * MIB, NO_ROOM), shrunk);

    let (mut size, mut unread) = (start(STREAM_WINDOW), MIB - 100);
    for _ in 0..MAX_STREAMS {
        size = next_size(size, size.connection - unread, unread, NO_ROOM);
        assert_eq!(size.stream, LEAST_STREAM_WINDOW);
        assert!(size.connection - unread >= size.stream);
        unread += size.stream;
    }
    assert!(size.connection <= 3 * MIB, "{size:?}");
}

#[test]
fn a_window_that_was_told_and_not_heard_of_is_told_again() {
    let size = Size { stream: STREAM_WINDOW, connection: 8 * MIB };

    assert_eq!(next_size(size, 0, MIB, MOST), Size { connection: 9 * MIB, ..size });
}

#[test]
fn streams_get_their_window_back_when_others_read_on() {
    let squeezed = Size { stream: LEAST_STREAM_WINDOW, connection: 16 * MIB };

    assert_eq!(next_size(squeezed, MIB, 15 * MIB, MOST), squeezed);
    let next = next_size(squeezed, 6 * MIB, 10 * MIB, MOST);
    assert_eq!(next, Size { stream: 128 << 10, connection: 11 * MIB });
    assert_eq!(next_size(next, 10 * MIB, MIB / 4, 2 * MIB).stream, STREAM_WINDOW);
}
