//! A sidecar that is asked to end, as foreign clients see it: what is under way is answered, and each is told in the words
//! of its protocol to open nothing new.

use std::{
    io::Write as _,
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use douane_tests::{counterparts, wait::eventually};
use serde_json::{Value, json};

use super::pair::{Pair, hear};

/// RFC 9113 6.8: streams that were on their way when the connection began to end.
const ANY_STREAM: u64 = (1 << 31) - 1;

fn says_goodbye_twice(ends: &str) {
    let Some(python) = counterparts::python() else { return };
    // An application is spoken to as its client spoke.
    let server = if ends == "orders" { "server_h11.py" } else { "server_h2.py" };
    let Some(mut pair) = Pair::before_script(json!({ "ends": ends, "protocol": "" }), server) else { return };
    let mut client = Command::new(python);
    client.arg(counterparts::script("h2_goodbye.py"));
    if ends == "orders" {
        client.arg(pair.peer.to_string()).arg(pair.svid());
    } else {
        client.arg(pair.app.to_string());
    }
    let client = client.stdout(Stdio::piped()).spawn().unwrap();
    is_under_way(&pair, "first half, ");

    pair.ask_to_end();

    let told = client.wait_with_output().unwrap().stdout;
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&told["first"], &told["goaways"]), (&json!([ANY_STREAM]), &json!([ANY_STREAM, 3])), "{told}");
    // No error, and both were answered.
    assert_eq!((&told["goaway"], &told["closed"]), (&json!(0), &json!(true)), "{told}");
    assert_eq!((&told["statuses"], &told["resets"]), (&json!([200, 200]), &json!({})), "{told}");
    assert!(told["bodies"].to_string().contains("saw POST /slow 23<"), "{told}");
    pair.ends_in_order();
}

fn is_under_way(pair: &Pair, sent: &str) {
    eventually(&format!("{sent} is under way"), Duration::from_secs(60), || {
        let told = pair.forwarded();
        if told.contains(sent) { Ok(()) } else { Err(told) }
    });
}

#[test]
fn a_peer_that_drains_says_goodbye_twice_and_answers_what_was_on_its_way() {
    says_goodbye_twice("orders");
}

#[test]
fn an_applications_own_sidecar_that_drains_says_goodbye_twice_and_answers_what_was_on_its_way() {
    says_goodbye_twice("web");
}

#[test]
fn an_http11_client_of_a_sidecar_that_drains_is_answered_and_told_to_close() {
    let Some(mut pair) = Pair::before_h11(json!({ "protocol": "http1" })) else { return };
    let [mut client, mut idle] = [(); 2].map(|()| {
        let stream = TcpStream::connect(pair.app).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    });
    client.write_all(b"POST /slow HTTP/1.1\r\nHost: orders\r\nContent-Length: 11\r\n\r\nfirst ").unwrap();
    idle.write_all(b"GET /quick HTTP/1.1\r\nHost: orders\r\n\r\n").unwrap();
    is_under_way(&pair, "/slow");
    is_under_way(&pair, "/quick");

    pair.ask_to_end();
    let told = hear(&mut idle).0;
    assert!(told.starts_with("HTTP/1.1 200"), "who has nothing under way is hung up on: {told}");
    client.write_all(b"half.").unwrap();

    let told = hear(&mut client).0;
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("saw POST /slow 11<"), "{told}");
    assert!(told.to_lowercase().contains("\r\nconnection: close\r\n"), "{told}");
    pair.ends_in_order();
}
