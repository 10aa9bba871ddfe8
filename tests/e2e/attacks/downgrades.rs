//! HTTP/2 that would say something else in HTTP/1: names and values that break out of their line, lengths that lie,
//! pseudo-headers out of place; from an application (h2c) and from a peer with a certificate (`douane/1`).

use serde_json::{Value, json};

use super::pair::{Pair, foreign_told};

fn pair() -> Option<Pair> {
    Pair::before_h11(json!({ "protocol": "http1" }))
}

type Fields<'a> = &'a [(&'a str, &'a str)];

fn head(fields: Fields<'_>) -> Value {
    let usual = [(":method", "POST"), (":scheme", "http"), (":authority", "orders"), (":path", "/a")];
    let fields: Vec<_> = usual.iter().chain(fields).collect();
    json!({ "headers": fields })
}

fn only(fields: Fields<'_>) -> Value {
    json!({ "headers": fields })
}

// What a peer says so that the receiver speaks HTTP/1 to the server.
fn as_peer(mut case: Value) -> Value {
    let headers = case["headers"].as_array_mut().unwrap();
    headers.push(json!(["x-douane-http", "1.1"]));
    case
}

/// No case is answered with success, and the server sees no byte of any.
fn never_reach_the_server(cases: &[(&str, Value)]) {
    let Some(mut pair) = pair() else { return };
    for (door, told) in both_doors(&pair, cases) {
        for ((what, _), told) in cases.iter().zip(told.as_array().unwrap()) {
            let passed = told["statuses"].as_array().unwrap().iter().any(|status| status == 200);
            assert!(!passed, "{door}: {what}: {told}");
        }
    }
    assert_eq!(pair.forwarded(), "");
    pair.is_well();
}

fn both_doors(pair: &Pair, cases: &[(&str, Value)]) -> Vec<(&'static str, Value)> {
    let said: Vec<&Value> = cases.iter().map(|(_, case)| case).collect();
    let by_peer: Vec<Value> = cases.iter().map(|(_, case)| as_peer(case.clone())).collect();
    let svid = pair.svid();
    let (app, peer) = (pair.app.to_string(), pair.peer.to_string());
    let outbound = foreign_told("h2_say.py", &[&app], &json!(said));
    let inbound = foreign_told("h2_say.py", &[&peer, svid.to_str().unwrap()], &json!(by_peer));
    [("outbound", outbound), ("inbound", inbound)]
        .into_iter()
        .filter_map(|(door, told)| Some((door, told?)))
        .collect()
}

#[test]
fn names_and_values_that_would_break_out_of_their_line_never_reach_the_server() {
    never_reach_the_server(&[
        ("CRLF in a value", head(&[("x", "a\r\nTransfer-Encoding: chunked")])),
        ("LF in a value", head(&[("x", "a\nb: c")])),
        ("CR in a value", head(&[("x", "a\rb")])),
        ("NUL in a value", head(&[("x", "a\0b")])),
        ("CRLF in a name", head(&[("x: y\r\nz", "a")])),
        ("a colon in a name", head(&[("content-length: 0", "a")])),
        ("a blank in a name", head(&[("transfer-encoding ", "chunked")])),
        ("NUL in a name", head(&[("x\0", "a")])),
        ("upper case in a name", head(&[("Transfer-Encoding", "chunked")])),
        ("an empty name", head(&[("", "a")])),
        (
            "CRLF in the path",
            only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "orders"),
                (":path", "/a HTTP/1.1\r\nHost: x\r\n\r\nGET /b"),
            ]),
        ),
        (
            "a blank in the path",
            only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "orders"),
                (":path", "/a HTTP/1.1"),
            ]),
        ),
        (
            "CRLF in the method",
            only(&[
                (":method", "GET /b HTTP/1.1\r\nX: "),
                (":scheme", "http"),
                (":authority", "orders"),
                (":path", "/a"),
            ]),
        ),
        (
            "a blank in the method",
            only(&[(":method", "GET /b"), (":scheme", "http"), (":authority", "orders"), (":path", "/a")]),
        ),
        (
            "CRLF in the authority",
            only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "orders\r\nX: y"),
                (":path", "/a"),
            ]),
        ),
        (
            "user information in the authority",
            only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "keeper@orders"),
                (":path", "/a"),
            ]),
        ),
        (
            "a scheme that is a request",
            only(&[
                (":method", "GET"),
                (":scheme", "http://orders/b HTTP/1.1\r\n"),
                (":authority", "orders"),
                (":path", "/a"),
            ]),
        ),
    ]);
}

#[test]
fn what_belongs_to_an_http1_hop_never_reaches_the_server() {
    never_reach_the_server(&[
        ("transfer-encoding", head(&[("transfer-encoding", "chunked")])),
        ("connection", head(&[("connection", "close")])),
        ("keep-alive", head(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", head(&[("proxy-connection", "close")])),
        ("upgrade", head(&[("upgrade", "websocket")])),
        ("te other than trailers", head(&[("te", "gzip")])),
        ("transfer_encoding", head(&[("transfer_encoding", "chunked")])),
        ("content_length", head(&[("content_length", "3")])),
    ]);
}

const NO_LENGTH: &str = "none with data";

#[test]
fn lengths_that_differ_from_the_data_never_make_a_whole_request() {
    let Some(mut pair) = pair() else { return };
    let with = |length: &str, data: &[&str]| {
        let mut case = head(&[("content-length", length)]);
        case["data"] = json!(data);
        case["end"] = json!("data");
        case
    };
    let cases = [
        ("more than the data", with("5", &["abc"])),
        ("less than the data", with("3", &["abcGET /forbidden HTTP/1.1\r\n\r\n"])),
        (NO_LENGTH, with("0", &["GET /forbidden HTTP/1.1\r\nHost: orders\r\n\r\n"])),
        ("a sign", with("+3", &["abc"])),
        ("a list", with("3, 3", &["abc"])),
        ("no number", with("three", &["abc"])),
        ("too long a number", with("18446744073709551619", &["abc"])),
        ("data without an end", json!({ "headers": head(&[("content-length", "5")])["headers"] })),
    ];
    for (door, told) in both_doors(&pair, &cases) {
        for ((what, _), told) in cases.iter().zip(told.as_array().unwrap()) {
            // A request of no length is whole before its data comes, and may be answered by then (RFC 9113 8.1.1); that the
            // data is nobody's request is seen below.
            let is_whole_at_once = *what == NO_LENGTH;
            let passed = told["statuses"].as_array().unwrap().iter().any(|status| status == 200);
            assert!(!passed || is_whole_at_once, "{door}: {what}: {told}");
        }
    }
    assert!(!pair.forwarded().contains("forbidden"), "{}", pair.forwarded());
    pair.is_well();
}

#[test]
fn pseudo_headers_twice_late_unknown_or_missing_never_reach_the_server() {
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "orders"), (":path", "/a"));
    never_reach_the_server(&[
        ("two methods", only(&[method, (":method", "POST"), scheme, authority, path])),
        ("two paths", only(&[method, scheme, authority, path, (":path", "/b")])),
        ("two authorities", only(&[method, scheme, authority, (":authority", "keeper"), path])),
        ("two schemes", only(&[method, scheme, scheme, authority, path])),
        ("a late one", only(&[method, scheme, authority, ("x", "y"), path])),
        ("an unknown one", only(&[method, scheme, authority, path, (":unknown", "x")])),
        ("one of an answer", only(&[method, scheme, authority, path, (":status", "200")])),
        ("no method", only(&[scheme, authority, path])),
        ("no path", only(&[method, scheme, authority])),
        ("no scheme", only(&[method, authority, path])),
        ("an empty path", only(&[method, scheme, authority, (":path", "")])),
        ("a path without a slash", only(&[method, scheme, authority, (":path", "a")])),
        ("an absolute path", only(&[method, scheme, authority, (":path", "http://keeper/a")])),
        ("an asterisk", only(&[method, scheme, authority, (":path", "*")])),
        ("no authority", only(&[method, scheme, path])),
        ("a host that differs", only(&[method, scheme, authority, path, ("host", "keeper")])),
        ("two hosts", only(&[method, scheme, authority, path, ("host", "orders"), ("host", "orders")])),
        ("a protocol without CONNECT", only(&[method, scheme, authority, path, (":protocol", "websocket")])),
    ]);
}

#[test]
fn pseudo_headers_and_lengths_behind_a_body_change_nothing() {
    let Some(mut pair) = pair() else { return };
    let behind = |fields: Fields<'_>| {
        let mut case = head(&[]);
        case["data"] = json!(["abc"]);
        case["trailers"] = json!(fields);
        case["end"] = json!("trailers");
        case
    };
    let cases = [
        ("a path", behind(&[(":path", "/forbidden")])),
        ("a status", behind(&[(":status", "200")])),
        ("a length", behind(&[("content-length", "50")])),
        ("a coding", behind(&[("transfer-encoding", "chunked")])),
        ("a host", behind(&[("host", "keeper")])),
        (
            "an identity",
            behind(&[("x-forwarded-client-cert", "forged"), ("x_forwarded_client_cert", "forged")]),
        ),
        ("our own", behind(&[("x-douane-http", "1.0")])),
        ("a line", behind(&[("x", "a\r\n\r\nGET /forbidden HTTP/1.1\r\n\r\n")])),
    ];
    both_doors(&pair, &cases);
    let forwarded = pair.forwarded().to_lowercase();
    for hidden in ["forbidden", "keeper", "forged", "x-douane", "content-length: 50"] {
        assert!(!forwarded.contains(hidden), "{hidden}: {forwarded}");
    }
    pair.is_well();
}
