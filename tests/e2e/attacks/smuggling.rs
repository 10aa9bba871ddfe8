//! Requests that two parsers could cut at two places. Either the sidecar refuses such a request and closes, so that
//! nothing behind it is read, or exactly one request comes out, in the one spelling that everybody reads alike.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;

use super::pair::{Pair, say, say_all};

/// A second request behind the first; in most attacks somebody would take it for a part of that, or the other way round.
const BEHIND: &str = "GET /forbidden HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";

/// An attack is refused without any time limit's help: the limit of heads is a minute here.
const SOON: Duration = Duration::from_secs(15);

/// Doors through which an application's own bytes come: to its sidecar, and in plaintext to the other pod's.
fn doors(pair: &Pair) -> [(&'static str, SocketAddr); 2] {
    [("outbound", pair.app), ("inbound", pair.peer)]
}

fn pair() -> Option<Pair> {
    Pair::before_h11(json!({ "protocol": "http1", "mode": "permissive", "head": 60_000 }))
}

/// Each is answered with 400, or with nothing where it does not even begin as HTTP does; the connection is closed, and the
/// server sees not a byte.
fn are_refused(cases: &[(&str, &str)]) {
    are_answered(cases, &[&[], &[400]]);
}

/// Each is answered so, and the server sees not a byte.
fn are_answered(cases: &[(&str, &str)], accepted: &[&[u16]]) {
    let Some(mut pair) = pair() else { return };
    let mut wrong = Vec::new();
    for (door, address) in doors(&pair) {
        for (what, bytes) in cases {
            let before = pair.forwarded().len();
            let began = Instant::now();
            let told = say(address, format!("{bytes}{BEHIND}").as_bytes());
            let passed = pair.forwarded().split_off(before);
            if !accepted.contains(&&*told.statuses()) || !passed.is_empty() || began.elapsed() > SOON {
                wrong.push(format!("{door}: {what}: {bytes:?}: {told:?} {passed:?} {:?}", began.elapsed()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    pair.is_well();
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: orders\r\n{headers}\r\n{body}")
}

/// All these heads with the same body.
fn heads_are_refused(heads: &[&str], body: &str) {
    let requests: Vec<_> = heads.iter().map(|head| (*head, post(head, body))).collect();
    let cases: Vec<_> = requests.iter().map(|(what, request)| (*what, request.as_str())).collect();
    are_refused(&cases);
}

#[test]
fn a_length_together_with_a_coding_is_refused_in_every_order_and_spelling() {
    heads_are_refused(
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n",
            "Content-Length: 5\r\nTransfer-Encoding:chunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked \r\n",
            "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: \r\n",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        ],
        "0\r\n\r\n",
    );
}

#[test]
fn two_lengths_that_differ_are_refused() {
    heads_are_refused(
        &[
            "Content-Length: 3\r\nContent-Length: 0\r\n",
            "Content-Length: 0\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nX: y\r\ncontent-length: 03\r\n",
            "Content-Length: 3, 0\r\n",
            "Content-Length: 3,3\r\n",
        ],
        "abc",
    );
}

#[test]
fn a_length_that_is_no_plain_number_is_refused() {
    heads_are_refused(
        &[
            "Content-Length: +3\r\n",
            "Content-Length: -3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length: 3 0\r\n",
            "Content-Length: 3;a\r\n",
            "Content-Length: 3.0\r\n",
            "Content-Length: \"3\"\r\n",
            "Content-Length: 1e0\r\n",
            "Content-Length: \r\n",
            "Content-Length: chunked\r\n",
            "Content-Length: 18446744073709551619\r\n",
            "Content-Length: 99999999999999999999999999999999\r\n",
            "Content-Length: \u{0663}\r\n",
        ],
        "abc",
    );
}

#[test]
fn codings_other_than_chunked_alone_are_refused() {
    heads_are_refused(
        &[
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunkedx\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: ,chunked\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
            "Transfer-Encoding: \r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        ],
        "0\r\n\r\n",
    );
}

#[test]
fn lengths_and_codings_whose_names_hide_are_refused() {
    heads_are_refused(
        &[
            "Transfer-Encoding : chunked\r\n",
            "Content-Length : 3\r\n",
            "Transfer-Encoding\t: chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X:\r\n\tContent-Length: 3\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Transfer\u{0}-Encoding: chunked\r\n",
            "Transfer_Encoding: chunked\r\n",
            "Content_Length: 3\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n",
            "X: y\u{0}\r\nTransfer-Encoding: chunked\r\n",
            ": x\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding\r\n",
        ],
        "0\r\n\r\n",
    );
}

#[test]
fn lines_that_end_in_anything_but_cr_and_lf_are_refused() {
    are_refused(&[
        ("bare LF everywhere", "GET /a HTTP/1.1\nHost: orders\n\n"),
        ("bare LF behind the request line", "GET /a HTTP/1.1\nHost: orders\r\n\r\n"),
        ("bare LF behind a header", "GET /a HTTP/1.1\r\nHost: orders\n\r\n"),
        ("bare LF as the empty line", "GET /a HTTP/1.1\r\nHost: orders\r\n\n"),
        ("bare LF before the request", "\nGET /a HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("bare CR behind the request line", "GET /a HTTP/1.1\rHost: orders\r\n\r\n"),
        ("bare CR in a value", "GET /a HTTP/1.1\r\nHost: orders\r\nX: a\rb\r\n\r\n"),
        ("bare CR as the empty line", "GET /a HTTP/1.1\r\nHost: orders\r\n\r\r\n\r\n"),
        ("two CR", "GET /a HTTP/1.1\r\r\nHost: orders\r\n\r\n"),
    ]);
}

#[test]
fn an_http10_request_has_no_coding() {
    are_refused(&[
        ("chunked", "POST /a HTTP/1.0\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked and kept alive",
            "POST /a HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both",
            "POST /a HTTP/1.0\r\nHost: orders\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ]);
}

#[test]
fn request_lines_that_could_be_cut_in_two_ways_are_refused() {
    are_refused(&[
        ("two blanks", "GET  /a HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a blank in the target", "GET /a /b HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a tab", "GET\t/a HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a blank behind the version", "GET /a HTTP/1.1 \r\nHost: orders\r\n\r\n"),
        ("HTTP/1.2", "GET /a HTTP/1.2\r\nHost: orders\r\n\r\n"),
        ("HTTP/2.0", "GET /a HTTP/2.0\r\nHost: orders\r\n\r\n"),
        ("http/1.1", "GET /a http/1.1\r\nHost: orders\r\n\r\n"),
        ("HTTP/1.10", "GET /a HTTP/1.10\r\nHost: orders\r\n\r\n"),
        ("a method that is no token", "G@T /a HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("NUL in the target", "GET /a\u{0} HTTP/1.1\r\nHost: orders\r\n\r\n"),
    ]);
}

#[test]
fn hosts_that_two_parsers_could_read_differently_are_refused() {
    // Where the request ends is beyond doubt: what stands behind it is a request of its own.
    let cases = [
        ("none", "GET /a HTTP/1.1\r\nX: y\r\n\r\n"),
        ("two", "GET /a HTTP/1.1\r\nHost: orders\r\nHost: keeper\r\n\r\n"),
        ("twice the same", "GET /a HTTP/1.1\r\nHost: orders\r\nhost: orders\r\n\r\n"),
        ("a list", "GET /a HTTP/1.1\r\nHost: orders, keeper\r\n\r\n"),
        ("a blank", "GET /a HTTP/1.1\r\nHost: orders keeper\r\n\r\n"),
        ("a path", "GET /a HTTP/1.1\r\nHost: orders/x\r\n\r\n"),
        ("user information", "GET /a HTTP/1.1\r\nHost: keeper@orders\r\n\r\n"),
        ("two ports", "GET /a HTTP/1.1\r\nHost: orders:80:81\r\n\r\n"),
        ("empty", "GET /a HTTP/1.1\r\nHost:\r\n\r\n"),
        (
            "user information in the absolute form",
            "GET http://keeper@orders/a HTTP/1.1\r\nHost: orders\r\n\r\n",
        ),
        ("an absolute form without a host", "GET http:///a HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("an absolute form of no web", "GET ftp://orders/a HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("a host alone", "GET orders HTTP/1.1\r\nHost: orders\r\n\r\n"),
        ("an asterisk", "GET * HTTP/1.1\r\nHost: orders\r\n\r\n"),
    ];
    are_answered(&cases, &[&[], &[400], &[400, 403]]);
}

#[test]
fn the_absolute_form_names_the_host_and_what_the_header_says_is_forgotten() {
    let Some(pair) = pair() else { return };
    for (_, address) in doors(&pair) {
        let told =
            say(address, b"GET http://orders/a?b HTTP/1.1\r\nHost: keeper\r\nConnection: close\r\n\r\n");
        assert_eq!(told.statuses(), [200], "{told:?}");
    }
    let forwarded = pair.forwarded().to_lowercase();
    assert!(
        forwarded.contains("get /a?b http/1.1\r\n") && forwarded.contains("host: orders\r\n"),
        "{forwarded}"
    );
    assert!(!forwarded.contains("keeper") && !forwarded.contains("http://"), "{forwarded}");
}

#[test]
fn chunks_whose_size_could_be_read_in_two_ways_end_the_connection_and_what_follows_is_never_a_request() {
    let Some(mut pair) = pair() else { return };
    let sizes = [
        "0x3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        "-3\r\nabc\r\n",
        "3 \u{b}\r\nabc\r\n",
        " 3\r\nabc\r\n",
        "\r\nabc\r\n",
        ";x\r\nabc\r\n",
        "3_0\r\nabc\r\n",
        "g\r\nabc\r\n",
        "3\nabc\r\n",
        "3\rabc\r\n",
        "3;x\nabc\r\n",
        "3;x\n5\r\nabc\r\n",
        "3;x\ry\r\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n",
        "3\r\nabcXX",
        "3\r\nabc0\r\n",
        "10000000000000003\r\nabc\r\n",
        "fffffffffffffffffffffffffffffffffff\r\nabc\r\n",
        "3;xxxxxxxxxxxxxxxxxxxxxxxx\u{0}\r\nabc\r\n",
    ];
    for (door, address) in doors(&pair) {
        for size in sizes {
            let request = post("Transfer-Encoding: chunked\r\n", &format!("{size}0\r\n\r\n{BEHIND}"));
            let told = say(address, request.as_bytes());
            assert!(!told.statuses().contains(&200), "{door}: {size:?}: {told:?}");
            assert!(told.statuses().len() <= 1, "{door}: {size:?}: {told:?}");
        }
    }
    let forwarded = pair.forwarded();
    assert!(!forwarded.contains("forbidden"), "{forwarded}");
    assert!(!forwarded.contains("0\r\n\r\n"), "none of them came to its end: {forwarded}");
    pair.is_well();
}

#[test]
fn a_chunk_as_long_as_a_number_can_be_swallows_what_follows_and_never_ends() {
    let Some(mut pair) = pair() else { return };
    for (door, address) in doors(&pair) {
        let request =
            post("Transfer-Encoding: chunked\r\n", &format!("ffffffffffffffff\r\nabc\r\n0\r\n\r\n{BEHIND}"));
        let told = say_all(address, request.as_bytes());
        assert!(!told.statuses().contains(&200) && told.statuses().len() <= 1, "{door}: {told:?}");
    }
    pair.is_well();
}

#[test]
fn long_chunk_extensions_and_endless_trailers_are_not_read_for_ever() {
    let Some(mut pair) = pair() else { return };
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    let trailers = format!("0\r\n{}\r\n", "X-Y: z\r\n".repeat(64 * 1024));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(512 * 1024));
    for (door, address) in doors(&pair) {
        for body in [&extension, &trailers, &trailer] {
            let request = post("Transfer-Encoding: chunked\r\n", &format!("{body}{BEHIND}"));
            let told = say(address, request.as_bytes());
            assert!(!told.statuses().contains(&200), "{door}: {}: {told:?}", &body[..40]);
        }
    }
    assert!(!pair.forwarded().contains("forbidden"));
    pair.is_well();
}

#[test]
fn trailers_say_nothing_about_lengths_hosts_or_identities() {
    let Some(pair) = pair() else { return };
    for (door, address) in doors(&pair) {
        let body = "0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: keeper\r\nAuthorization: x\r\n\
                    X-Forwarded-Client-Cert: forged\r\nX-Douane-Http: 1.0\r\nX-Sum: 1\r\n\r\n";
        let request = post(
            "Transfer-Encoding: chunked\r\nTrailer: x-sum\r\nTE: trailers\r\n",
            &format!("{body}{BEHIND}"),
        );
        let told = say(address, request.as_bytes());
        assert!(matches!(told.statuses()[..], [200 | 400, ..]), "{door}: {told:?}");
    }
    let forwarded = pair.forwarded().to_lowercase();
    for hidden in ["content-length: 50", "keeper", "authorization", "forged", "x-douane"] {
        assert!(!forwarded.contains(hidden), "{hidden}: {forwarded}");
    }
}

#[test]
fn a_body_that_is_shorter_than_its_length_never_borrows_from_the_next_request() {
    let Some(mut pair) = pair() else { return };
    for (door, address) in doors(&pair) {
        let told = say(address, format!("{}{BEHIND}", post("Content-Length: 3\r\n", "abc")).as_bytes());
        assert_eq!(told.statuses(), [200, 403], "{door}: {told:?}");
    }
    pair.is_well();
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_is_judged() {
    let Some(pair) = pair() else { return };
    for (door, address) in doors(&pair) {
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: orders\r\n\r\n");
        let told = say(
            address,
            format!("{}{}{}{BEHIND}", request("/1"), request("/forbidden/x"), request("/2")).as_bytes(),
        );
        assert_eq!(told.statuses(), [200, 403, 200, 403], "{door}: {told:?}");
        let (first, second) = (told.0.find("\"/1\"").unwrap(), told.0.find("\"/2\"").unwrap());
        assert!(first < second, "{door}: {told:?}");
    }
    assert_eq!(pair.refusal("orders", "denied")["path"], "/forbidden/x");
    assert!(!pair.forwarded().contains("forbidden"));
}
