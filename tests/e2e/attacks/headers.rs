//! Headers that claim to be ours or another's: whoever sends them, what reaches the server is what was proven.

use serde_json::{Value, json};

use super::pair::{Pair, foreign_told, say};

const PROVEN: &str = "By=spiffe://cluster.local/ns/shop/sa/orders;URI=spiffe://cluster.local/ns/shop/sa/";

fn pair() -> Option<Pair> {
    Pair::before_h11(json!({ "protocol": "http1", "mode": "permissive" }))
}

fn request(headers: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

#[test]
fn an_identity_is_never_forged_by_a_header_in_any_spelling() {
    let Some(pair) = pair() else { return };
    let headers = [
        "X-Forwarded-Client-Cert: forged\r\n",
        "x-forwarded-client-cert: forged\r\nX-FORWARDED-CLIENT-CERT: forged\r\n",
        "X_Forwarded_Client_Cert: forged\r\n",
        "X-Forwarded_Client-Cert: forged\r\n",
        "x_forwarded-client_cert: forged\r\n",
        "X-Douane-Peer: forged\r\nx_douane_peer: forged\r\nX-DOUANE-HTTP: forged\r\n",
    ];
    for (address, proven) in [(pair.app, Some("web")), (pair.peer, None)] {
        for header in headers {
            let told = say(address, &request(header)).0.to_lowercase();
            assert!(
                told.contains(" 200 ") && !told.contains("forged") && !told.contains("douane-peer"),
                "{told}"
            );
            let identity = proven.map(|name| format!("{PROVEN}{name}").to_lowercase());
            match identity {
                Some(identity) => assert_eq!(told.matches(&identity).count(), 1, "{header}: {told}"),
                None => assert!(!told.contains("client-cert"), "{header}: {told}"),
            }
        }
    }
}

#[test]
fn connection_cannot_name_what_identifies_or_routes() {
    let Some(pair) = pair() else { return };
    for named in [
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "X-Douane-Http",
        "Host",
        "Authorization",
        "Content-Length",
        "Cookie",
        "Traceparent",
        "X-Forwarded-For",
        "close, x-forwarded-client-cert",
        "x-other,HOST",
    ] {
        for address in [pair.app, pair.peer] {
            let header = format!("Connection: {named}\r\n");
            let told = say(address, &request(&header));
            assert_eq!(told.statuses(), [400], "{named}: {told:?}");
        }
    }
    assert_eq!(pair.forwarded(), "");
}

#[test]
fn what_connection_names_belongs_to_its_hop() {
    let Some(pair) = pair() else { return };
    for address in [pair.app, pair.peer] {
        let told = say(
            address,
            &request(
                "Connection: x-hop, , keep-alive\r\nX-Hop: hidden\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ),
        );
        let told = told.0.to_lowercase();
        assert!(told.contains(" 200 "), "{told}");
        for gone in ["hidden", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
            assert!(!told.contains(gone), "{gone}: {told}");
        }
    }
}

#[test]
fn forged_traces_are_not_believed_and_floods_of_them_are_cut() {
    let Some(mut pair) = pair() else { return };
    let long = "a=b,".repeat(4 * 1024);
    let many = "tracestate: a=b\r\n".repeat(60);
    let baggage = format!("baggage: {}\r\n", "k=v,".repeat(4 * 1024));
    let headers = [
        "traceparent: 00-00000000000000000000000000000000-0000000000000000-01\r\n".to_owned(),
        "traceparent: ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n".to_owned(),
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-01\r\n".to_owned(),
        format!("traceparent: 00-{}\r\n", "4".repeat(8000)),
        format!("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: {long}\r\n"),
        format!("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n{many}"),
        baggage,
        "b3: 1\r\nx-b3-traceid: zz\r\nx-b3-spanid: \u{e4}\r\n".to_owned(),
    ];
    for address in [pair.app, pair.peer] {
        for header in &headers {
            let told = say(address, &request(header)).0;
            assert!(told.contains(" 200 "), "{header:.80}: {told}");
            let parents: Vec<_> = told.match_indices("[\"Traceparent\", \"00-").collect();
            assert_eq!(parents.len(), 1, "{header:.80}: {told}");
            assert!(!told.contains("00000000000000000000000000000000") && !told.contains(&long), "{told}");
        }
    }
    pair.is_well();
}

#[test]
fn a_head_of_too_many_or_too_long_headers_is_refused() {
    let Some(mut pair) = pair() else { return };
    for (what, headers) in [
        ("many", "X: y\r\n".repeat(200)),
        ("long", format!("X: {}\r\n", "y".repeat(128 * 1024))),
        ("long names", format!("{}: y\r\n", "x".repeat(100 * 1024))),
    ] {
        for address in [pair.app, pair.peer] {
            let told = say(address, &request(&headers));
            assert!(matches!(told.statuses()[..], [] | [400 | 431]), "{what}: {told:?}");
        }
    }
    assert_eq!(pair.forwarded(), "");
    pair.is_well();
}

#[test]
fn a_connect_goes_nowhere_but_to_the_connections_own_port() {
    let Some(mut pair) = Pair::before_h11(json!({ "protocol": "undeclared" })) else { return };
    let connect = |fields: &[(&str, &str)]| -> Value {
        let fields: Vec<_> = [(":method", "CONNECT")].iter().chain(fields).copied().collect();
        json!({ "headers": fields, "data": ["GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"], "end": "none" })
    };
    let pod = pair.pod.to_string();
    let elsewhere = format!("{}:15006", pair.pod.ip());
    let mut cases = vec![("plain CONNECT", connect(&[(":authority", &pod)]))];
    for (what, authority) in [
        ("another host", "127.0.0.1:15012"),
        ("another port", elsewhere.as_str()),
        ("a name", "orders:80"),
        ("metadata", "169.254.169.254:80"),
        ("v4-mapped", "[::ffff:127.0.0.1]:22"),
        ("with user information", "x@127.0.0.1:22"),
    ] {
        cases.push((
            what,
            connect(&[
                (":protocol", "douane-tcp"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", authority),
            ]),
        ));
        cases.push((what, connect(&[(":authority", authority)])));
    }
    for (what, protocol) in [
        ("websocket", "websocket"),
        ("connect-udp", "connect-udp"),
        ("upper case", "DOUANE-TCP"),
        ("nothing", ""),
    ] {
        cases.push((
            what,
            connect(&[(":protocol", protocol), (":scheme", "http"), (":path", "/"), (":authority", &pod)]),
        ));
    }
    let said: Vec<&Value> = cases.iter().map(|(_, case)| case).collect();
    let svid = pair.svid();
    let Some(told) =
        foreign_told("h2_say.py", &[&pair.peer.to_string(), svid.to_str().unwrap()], &json!(said))
    else {
        return;
    };
    for ((what, case), told) in cases.iter().zip(told.as_array().unwrap()) {
        let refused = told["statuses"].as_array().unwrap().iter().all(|status| status.as_u64() >= Some(400));
        assert!(
            refused && told["bodies"].as_array().unwrap().iter().all(|body| body == ""),
            "{what} {case}: {told}"
        );
    }
    assert_eq!(pair.forwarded(), "");
    pair.refusal("orders", "connect_not_allowed");
    pair.is_well();
}
