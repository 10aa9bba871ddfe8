//! Clients that are slow on purpose: heads, bodies and answers by the byte (slowhttptest), and many connections that say
//! nothing. Honest ones beside them are served, and what never becomes a request is given up in time.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use douane_tests::counterparts;
use serde_json::json;

use super::pair::{Pair, say};

/// An honest request beside slow ones; alone it takes some milliseconds.
const HONEST: Duration = Duration::from_secs(15);
/// Of 200 slow connections, in KiB: what a head of each may hold.
const MOST_MEMORY: u64 = 48 * 1024;

fn slow(arguments: &[&str]) {
    let Some(slowhttptest) = counterparts::program("slowhttptest") else { return };
    let Some(mut pair) =
        Pair::before_h11(json!({ "protocol": "http1", "mode": "permissive", "head": 2000, "idle": 4000 }))
    else {
        return;
    };
    pair.get("/warm");
    let before = pair.memory();
    for address in [pair.app, pair.peer] {
        thread::scope(|scope| {
            let attack = scope.spawn(|| attack(&slowhttptest, arguments, address));
            while !attack.is_finished() {
                let began = Instant::now();
                let told =
                    say(pair.app, b"GET /honest HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
                assert!(told.0.starts_with("HTTP/1.1 200"), "{told:?}");
                assert!(began.elapsed() < HONEST, "{:?}", began.elapsed());
                assert!(pair.memory() < before + MOST_MEMORY, "from {before} to {} KiB", pair.memory());
                thread::sleep(Duration::from_millis(20));
            }
            attack.join().unwrap();
        });
    }
    pair.is_well();
}

fn attack(slowhttptest: &std::path::Path, arguments: &[&str], address: SocketAddr) {
    // 200 connections for 6 seconds, a piece every second.
    let output = Command::new(slowhttptest)
        .args(["-c", "200", "-r", "200", "-l", "6", "-i", "1", "-p", "3"])
        .args(arguments)
        .args(["-u", &format!("http://{address}/a")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn slow_heads_are_given_up_and_keep_nobody_waiting() {
    slow(&["-H"]);
}

#[test]
fn slow_bodies_keep_nobody_waiting() {
    slow(&["-B", "-s", "8192"]);
}

#[test]
fn slow_readers_keep_nobody_waiting() {
    slow(&["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "3"]);
}

#[test]
fn a_head_by_the_byte_ends_when_its_time_is_over_not_with_its_last_byte() {
    let Some(pair) = Pair::before_h11(json!({ "protocol": "http1", "mode": "permissive", "head": 700 }))
    else {
        return;
    };
    for address in [pair.app, pair.peer] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let began = Instant::now();
        let mut ended = false;
        for byte in b"GET /a HTTP/1.1\r\nHost: orders\r\nX: ".iter().chain([b'y'; 600].iter()) {
            let sent = stream.write_all(&[*byte]);
            let read = stream.read(&mut [0; 100]);
            if sent.is_err()
                || read.is_ok()
                || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
            {
                ended = true;
                break;
            }
        }
        assert!(ended && began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
    pair.refusal("web", "head_timeout");
    pair.refusal("orders", "head_timeout");
    assert_eq!(pair.forwarded(), "");
}

#[test]
fn handshakes_by_the_byte_end_when_their_time_is_over() {
    let Some(mut pair) = Pair::before_h11(json!({ "protocol": "http1", "handshake": 700 })) else { return };
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(pair.peer).unwrap();
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        })
        .collect();
    for mut stream in streams {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    pair.refusal("orders", "handshake_timeout");
    pair.is_well();
}
