//! Operators who look at live requests: few at once, and whoever leaves makes room at once.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{Instant, timeout},
};

use crate::plane::Ground;

/// As long as a refusal takes on a slow machine; one that is not refused stays open.
const SAID: Duration = Duration::from_secs(1);
/// Until a place that was given back is seen to be free.
const FREED: Duration = Duration::from_secs(60);

struct Tap {
    stream: BufReader<UnixStream>,
}

impl Tap {
    async fn open(socket: &PathBuf) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let asked = serde_json::json!({
            "do": "tap", "from": null, "to": null, "methods": [], "path": null, "status": null,
            "denied": false, "failed": false, "bothEnds": false,
        });
        stream.write_all(format!("{asked}\n").as_bytes()).await.unwrap();
        Self { stream: BufReader::new(stream) }
    }

    // Why it was refused, if it was.
    async fn refused(&mut self) -> Option<String> {
        let mut line = String::new();
        match timeout(SAID, self.stream.read_line(&mut line)).await {
            Ok(read) => {
                read.unwrap();
                Some(line)
            }
            Err(_) => None,
        }
    }

    async fn one_that_is(socket: &PathBuf, open: bool) -> Self {
        let limit = Instant::now() + FREED;
        loop {
            let mut tap = Self::open(socket).await;
            let refused = tap.refused().await;
            if refused.is_none() == open {
                return tap;
            }
            assert!(Instant::now() < limit, "no tap was seen to be open={open}: {refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_leaves_gives_the_place_of_his_tap_back_at_once() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let socket = ground.state().join("admin.sock");

    let mut taps = Vec::new();
    for _ in 0..4 {
        taps.push(Tap::one_that_is(&socket, true).await);
    }
    let mut fifth = Tap::open(&socket).await;
    let told: Value = serde_json::from_str(&fifth.refused().await.expect("all places are taken")).unwrap();
    assert!(told.to_string().contains("4 taps are open already"), "{told}");

    // Nothing is said: the connection is gone, as when a process is killed.
    drop(taps.pop());
    taps.push(Tap::one_that_is(&socket, true).await);
    let _refused = Tap::one_that_is(&socket, false).await;

    drop(taps);
    let mut again = Vec::new();
    for _ in 0..4 {
        again.push(Tap::one_that_is(&socket, true).await);
    }
    plane.stop().await;
}
