//! Detection: what bytes begin, however they are cut.

use proptest::prelude::*;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::*;
use crate::net::pipe::pipe;

fn patient() -> Limits {
    Limits::default()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[test]
fn first_bytes_tell_what_is_spoken() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], Some(Opening::Http1)),
        (b"GET / HTTP/1.0\r\n", Some(Opening::Http1)),
        (b"GET / HTTP/1.1\n", Some(Opening::Http1)),
        (b"PURGE /x HTTP/1.1\r\nHo", Some(Opening::Http1)),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Some(Opening::Http1)),
        (b"GET / HTTP/1.1", None),
        (b"GET / HT", None),
        (b"G", None),
        (b"", None),
        (PREFACE, Some(Opening::Http2)),
        (b"PRI * HT", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some(Opening::Http2)),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nmore", Some(Opening::Http1)),
        (b"\x16\x03\x01\x00\x04nope", Some(Opening::Tls)),
        (b"\x16\x03\x01\x02\x00\x01", None),
        (b"\x16", None),
        (b"\x16\x02", Some(Opening::Other)),
        (b"EHLO example.com\r\n", Some(Opening::Other)),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Some(Opening::Other)),
        (b"GET key\r\n", Some(Opening::Other)),
        (b"GET /\r\n", Some(Opening::Other)),
        (b"\x00\x00\x00\x08", Some(Opening::Other)),
        (b"*3\r\n$3\r\n", Some(Opening::Other)),
        (b"{\"op\"", Some(Opening::Other)),
    ] {
        assert_eq!(classify(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn what_a_lenient_server_takes_for_a_request_line_is_one() {
    for line in [
        &b" GET / HTTP/1.1\r\n"[..],
        b"\x0cGET\t/\x0bHTTP/1.1 \r\n",
        b"GET  /a b HTTP/1.1\r\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"GET / http/1.1\r\n",
        b"GET / HTTP/9.9\r\n",
    ] {
        assert_eq!(classify(line), Some(Opening::Http1), "{:?}", String::from_utf8_lossy(line));
    }
}

#[test]
fn a_request_line_of_any_length_is_one() {
    for length in [100, 15 * 1024, 17 * 1024, 100 * 1024] {
        let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(length));

        let told = (0..=line.len()).step_by(997).find_map(|cut| classify(&line.as_bytes()[..cut]));

        assert!(matches!(told, None | Some(Opening::Http1)), "{length}: {told:?}");
        assert_eq!(classify(line.as_bytes()), Some(Opening::Http1), "{length}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_silent_and_who_has_begun_is_heard_to_the_end() {
    let (mut client, mut server) = pair().await;
    let mut heard = Heard::default();

    assert_eq!(heard.listen_for(&mut server, SILENCE, &patient()).await.unwrap(), Opening::Silent);
    client.write_all(b"GE").await.unwrap();
    let cut = tokio::time::timeout(SILENCE, heard.listen(&mut server, &patient())).await;
    assert!(cut.is_err(), "{cut:?}");
    client.write_all(b"T / HTTP/1.1\r\n").await.unwrap();

    assert_eq!(heard.listen(&mut server, &patient()).await.unwrap(), Opening::Http1);
    assert_eq!(heard.bytes(), b"GET / HTTP/1.1\r\n");
}

#[tokio::test]
async fn a_beginning_that_never_ends_is_waited_for_no_longer_than_patience() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"GE").await.unwrap();
    let mut heard = Heard::default();

    let opening =
        heard.listen(&mut server, &Limits { head: Duration::from_millis(20), ..patient() }).await.unwrap();

    assert_eq!((opening, heard.bytes()), (Opening::Silent, &b"GE"[..]));
}

#[test]
fn where_bytes_are_declared_only_a_handshake_is_heard_to_its_end() {
    for (bytes, expected) in [
        (&b"G"[..], Some(Opening::Other)),
        (b"PRI * HT", Some(Opening::Other)),
        (b"\x16\x03\x01\x02", None),
        (b"", None),
    ] {
        assert_eq!(Heard::of_bytes().sniffer.tell(bytes), expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn what_an_http_server_says_unasked_breaks_no_silence() {
    for (said, is_word) in [
        (&b"220 mail\r\n"[..], true),
        (b"\x4a\x00\x00\x00\x0a8.0", true),
        (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", false),
        (b"HTTP/1.1 408 Request Timeout\r\n", false),
        (b"", true),
    ] {
        let (client, mut server) = pair().await;
        server.write_all(said).await.unwrap();
        if said.is_empty() {
            server.shutdown().await.unwrap();
        }

        let word = tokio::time::timeout(SILENCE, speaks_unasked(&client)).await;

        let word = word.map(Result::unwrap);
        let expected = if said.is_empty() { Unasked::Ended } else { Unasked::Spoke };
        assert_eq!(word.ok(), is_word.then_some(expected), "{:?}", String::from_utf8_lossy(said));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_a_verdict_never_depends_on_how_they_were_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
    ) {
        if let Some(early) = bytes.get(..cut.min(bytes.len())).and_then(classify) {
            prop_assert_eq!(classify(&bytes), Some(early));
        }
    }

    #[test]
    fn a_request_line_is_told_however_it_was_cut(
        line in "[ \\r\\n]{0,3}[A-Z]{1,8} [!-~]{1,20} HTTP/[0-9]\\.[0-9]\r\n",
        cut in 0_usize..60,
    ) {
        let mut sniffer = Sniffer::default();
        let early = sniffer.tell(&line.as_bytes()[..cut.min(line.len())]);

        prop_assert_eq!(early.or_else(|| sniffer.tell(line.as_bytes())), Some(Opening::Http1));
    }
}

#[tokio::test(start_paused = true)]
async fn who_needs_not_to_be_heard_costs_no_timer_and_what_it_has_said_is_heard_all_the_same() {
    let (mut near, mut far) = pipe(64);
    // The runtime's timers are a millisecond coarse: in the middle of one.
    tokio::time::advance(Duration::from_micros(500)).await;
    let began = Instant::now();

    let silent = Heard::default().listen_for(&mut near, Duration::ZERO, &patient()).await.unwrap();
    far.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let said = Heard::default().listen_for(&mut near, Duration::ZERO, &patient()).await.unwrap();

    assert_eq!((silent, said), (Opening::Silent, Opening::Http1));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn what_waits_in_the_kernel_is_heard_without_a_wait() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();

    let said = Heard::default().listen_for(&mut server, Duration::ZERO, &patient()).await.unwrap();

    assert_eq!(said, Opening::Http1);
}
