//! Much of it: large bodies, and opaque streams with a slow reader, byte by byte what was sent and without being held.

use std::{env, fs, pin::pin, process::Command, rc::Rc, time::Duration};

use douane_proto::mesh::Protocol;
use http::Request;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    apps::{client1, echo_stream, full, http1},
    pods::{Shop, run, vip},
};

const MIB: usize = 1 << 20;
/// What both sidecars, their sockets' buffers and this test may take for one stream: far less than what it carries.
const GROWTH: usize = 48 * MIB;

/// Bytes whose order shows: a period of a prime length, which no buffer, frame or window has.
struct Pattern {
    period: Vec<u8>,
    at: usize,
}

impl Pattern {
    fn new() -> Self {
        let period = (0..65_521_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8);
        Self { period: period.collect(), at: 0 }
    }

    fn next(&mut self, most: usize) -> &[u8] {
        let start = self.at % self.period.len();
        let end = self.period.len().min(start + most);
        self.at += end - start;
        &self.period[start..end]
    }

    fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.at;
            let expected = self.next(bytes.len());
            let (here, rest) = bytes.split_at(expected.len());
            assert!(here == expected, "other bytes than were sent, after {at}");
            bytes = rest;
        }
    }
}

async fn send(mut to: impl AsyncWrite + Unpin, total: usize) {
    let mut pattern = Pattern::new();
    while pattern.at < total {
        let left = total - pattern.at;
        to.write_all(pattern.next(left)).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

/// Reads to the end, with a rest after each of so many bytes.
async fn receive(mut from: impl AsyncRead + Unpin, rest_after: usize) -> usize {
    let (mut pattern, mut bytes, mut rested) = (Pattern::new(), vec![0; 64 * 1024], 0);
    while let read @ 1.. = from.read(&mut bytes).await.unwrap() {
        pattern.check(&bytes[..read]);
        if pattern.at / rest_after > rested {
            rested = pattern.at / rest_after;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    pattern.at
}

// What this process holds; the sidecars live in it.
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

/// Runs the test called `name` again in a process of its own, whose memory nobody else uses; true in that process.
pub(crate) fn is_alone(name: &str) -> bool {
    const ALONE: &str = "DOUANE_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let told =
        Command::new(env::current_exe().unwrap()).args(["--exact", name]).env(ALONE, "1").output().unwrap();
    assert!(
        told.status.success(),
        "{}{}",
        String::from_utf8_lossy(&told.stdout),
        String::from_utf8_lossy(&told.stderr)
    );
    false
}

#[test]
fn opaque_bytes_in_bulk_arrive_whole_both_ways_and_wait_at_their_sender_for_a_slow_reader() {
    const EACH_WAY: usize = 256 * MIB;
    let name = "bulk::opaque_bytes_in_bulk_arrive_whole_both_ways_and_wait_at_their_sender_for_a_slow_reader";
    if !is_alone(name) {
        return;
    }
    run(async {
        let reading = Rc::new(Notify::new());
        let may_read = Rc::clone(&reading);
        let app = move |stream: TcpStream| {
            let may_read = Rc::clone(&may_read);
            async move {
                let (read, write) = stream.into_split();
                let receiving = async {
                    may_read.notified().await;
                    receive(read, 4 * MIB).await
                };
                let (received, ()) = tokio::join!(receiving, send(write, EACH_WAY));
                assert_eq!(received, EACH_WAY);
            }
        };
        let shop = Shop::open(Protocol::Tcp, app).await;
        let (read, write) = shop.web.connect(vip()).await.into_split();
        let before = resident();
        let mut sending = pin!(send(write, EACH_WAY));
        // Nobody reads: what was sent fills what holds it, and no more.
        let stuck = tokio::time::timeout(Duration::from_secs(2), sending.as_mut()).await;
        assert!(stuck.is_err());
        let held = resident().saturating_sub(before);
        assert!(held < GROWTH, "{} MiB are held for a reader that does not read", held / MIB);

        reading.notify_one();
        let mut most = 0;
        let watching = async {
            loop {
                most = most.max(resident().saturating_sub(before));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let talking = async { tokio::join!(sending, receive(read, 16 * MIB)).1 };
        let received = tokio::select! {
            received = talking => received,
            () = watching => unreachable!(),
        };

        assert_eq!(received, EACH_WAY);
        assert!(most < GROWTH, "{} MiB more at the most", most / MIB);
    });
}

#[test]
fn large_bodies_arrive_whole_both_ways() {
    const EACH_WAY: usize = 64 * MIB;
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, echo_stream)).await;
        let mut pattern = Pattern::new();
        let mut all = Vec::with_capacity(EACH_WAY);
        while all.len() < EACH_WAY {
            all.extend_from_slice(pattern.next(EACH_WAY - all.len()));
        }
        let mut client = client1(shop.web.connect(vip()).await).await;
        let request = Request::post("/big").header("host", "orders").body(full(all)).unwrap();

        let mut answer = client.send_request(request).await.unwrap().into_body();

        let mut told = Pattern::new();
        while let Some(frame) = answer.frame().await {
            told.check(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(told.at, EACH_WAY);
    });
}
