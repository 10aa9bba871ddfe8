//! Many that do not read, beside one who does, on one connection between two sidecars: whoever stands still holds up nobody,
//! makes the sidecars hold little, and gets all of its bytes when it reads on.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use douane_proto::mesh::Protocol;
use douane_proxy::budget;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinSet, spawn_local},
};

use crate::{
    bulk::{is_alone, resident},
    pods::{Shop, run, vip},
};

const MIB: usize = 1 << 20;
/// What each of the slow is told, or tells: more than its windows and the buffers of its sockets.
const EACH: usize = 8 * MIB;
/// Nothing moves for so long: everything that can be filled is full.
const STILL: Duration = Duration::from_millis(400);
/// Requests of the one who reads.
const QUICK: usize = 50;
/// Of the budget: what the windows of a full connection and of the next one may be in the end ...
const WINDOWS: usize = 32 * MIB;
/// ... and, of an opaque stream, what was read for it at once at either end.
const CHUNKS: usize = MIB / 2;
/// Not counted: the sidecars, both ends and the test, which live in one process.
const ALL_ELSE: usize = 64 * MIB;

/// What the slow ones do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Their clients do not read the answers.
    Answers,
    /// Their servers do not read what is sent to them.
    Uploads,
}

/// What moved in the application, and its leave to go on.
#[derive(Clone)]
struct App {
    way: Way,
    moved: Rc<Cell<usize>>,
    leave: Rc<Semaphore>,
}

impl App {
    fn new(way: Way) -> Self {
        Self { way, moved: Rc::default(), leave: Rc::new(Semaphore::new(0)) }
    }

    async fn send(&self, stream: &mut TcpStream) {
        let part = pattern();
        for _ in 0..EACH / part.len() {
            stream.write_all(&part).await.unwrap();
            self.moved.set(self.moved.get() + part.len());
        }
    }

    // `Q` asks for a word, `S` for what the slow ones do; as the head of a request, or as the first byte.
    async fn serve(self, mut stream: TcpStream) {
        let mut asked = [0; 1];
        while stream.read_exact(&mut asked).await.is_ok() {
            match asked {
                [b'S'] if self.way == Way::Answers => self.send(&mut stream).await,
                [b'S'] => {
                    // For good: it may read.
                    self.leave.acquire().await.unwrap().forget();
                    self.leave.add_permits(1);
                    receive(&mut stream).await;
                    stream.write_all(b"all").await.unwrap();
                }
                _ => stream.write_all(b"word").await.unwrap(),
            }
        }
    }

    async fn serve_http(self, mut stream: TcpStream) {
        loop {
            let head = head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            let slow = head.contains("/slow");
            if slow && self.way == Way::Answers {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {EACH}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                self.send(&mut stream).await;
                continue;
            }
            if slow {
                self.leave.acquire().await.unwrap().forget();
                self.leave.add_permits(1);
                receive(&mut stream).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nword").await.unwrap();
        }
    }
}

/// What nobody reads waits with the sidecars, not with the kernel.
fn holds_little(stream: &TcpStream) {
    holds(stream, 64 * 1024);
}

fn holds(stream: &TcpStream, bytes: usize) {
    let socket = SockRef::from(stream);
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.set_send_buffer_size(bytes).unwrap();
}

/// Bytes whose order shows.
pub(crate) fn pattern() -> Vec<u8> {
    (0..64 * 1024_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte).await, Ok(1)) {
            return String::new();
        }
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

async fn receive(stream: &mut TcpStream) {
    // A small one makes the kernel wait for its timers.
    holds(stream, MIB);
    let (expected, mut part) = (pattern(), vec![0; 64 * 1024]);
    for _ in 0..EACH / part.len() {
        stream.read_exact(&mut part).await.unwrap();
        assert!(part == expected, "other bytes than were sent");
    }
}

/// One of the slow: it has asked, and stands still.
async fn slow(shop: &Shop, protocol: Protocol, way: Way, moved: &Rc<Cell<usize>>) -> TcpStream {
    let mut stream = shop.web.connect(vip()).await;
    holds_little(&stream);
    let http = protocol == Protocol::Http1;
    let asks = match (http, way) {
        (true, Way::Answers) => "GET /slow HTTP/1.1\r\nhost: orders\r\n\r\n".to_owned(),
        (true, Way::Uploads) => {
            format!("POST /slow HTTP/1.1\r\nhost: orders\r\ncontent-length: {EACH}\r\n\r\n")
        }
        (false, _) => "S".to_owned(),
    };
    stream.write_all(asks.as_bytes()).await.unwrap();
    if way == Way::Answers {
        return stream;
    }
    // It sends by itself until that, too, stands still.
    let (near, far) = (stream, Rc::clone(moved));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let held = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut back, _) = listener.accept().await.unwrap();
    spawn_local(async move {
        let (mut read, mut write) = near.into_split();
        let part = pattern();
        for _ in 0..EACH / part.len() {
            write.write_all(&part).await.unwrap();
            far.set(far.get() + part.len());
        }
        let _ = tokio::io::copy(&mut read, &mut back).await;
    });
    held
}

/// How long each of the quick one's requests took, in order.
async fn latencies(shop: &Shop, protocol: Protocol) -> Vec<Duration> {
    let mut stream = shop.web.connect(vip()).await;
    let mut took = Vec::new();
    for _ in 0..QUICK {
        let began = Instant::now();
        if protocol == Protocol::Http1 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
            assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        } else {
            stream.write_all(b"Q").await.unwrap();
        }
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"word");
        took.push(began.elapsed());
    }
    took.sort();
    took
}

async fn stand_still(count: usize, moved: &Cell<usize>) {
    let (mut before, mut since) = (0, Instant::now());
    while since.elapsed() < STILL || before < count * 64 * 1024 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if moved.get() != before {
            (before, since) = (moved.get(), Instant::now());
        }
    }
}

/// So many that stand still, and one that does not.
fn beside(count: usize, protocol: Protocol, way: Way) {
    run(async move {
        let app = App::new(way);
        let serves = app.clone();
        let shop = Shop::open(protocol, move |stream| {
            let app = serves.clone();
            async move {
                holds_little(&stream);
                match protocol {
                    Protocol::Http1 => app.serve_http(stream).await,
                    _ => app.serve(stream).await,
                }
            }
        })
        .await;
        let alone = latencies(&shop, protocol).await;
        let (resident_before, held_before) = (resident(), budget::held());

        let mut standing = Vec::new();
        for _ in 0..count {
            standing.push(slow(&shop, protocol, way, &app.moved).await);
        }
        stand_still(count, &app.moved).await;
        assert!(
            app.moved.get() < count * EACH,
            "they do not stand still: {} KiB each",
            (app.moved.get() / count) >> 10
        );
        let beside = latencies(&shop, protocol).await;

        let (held, grown) = (budget::held() - held_before, resident().saturating_sub(resident_before));
        let (median, worst) = (beside[QUICK / 2], beside[QUICK - 1]);
        eprintln!(
            "median alone {:?}, beside {count} that do not read {median:?}, worst {worst:?}; \
             {} KiB of the budget and {} KiB of memory are held",
            alone[QUICK / 2],
            held >> 10,
            grown >> 10
        );
        assert!(median < Duration::from_secs(1), "{beside:?}");
        let most = WINDOWS + count * CHUNKS;
        assert!(held < most, "{} MiB of the budget", held / MIB);
        assert!(grown < most + ALL_ELSE, "{} MiB", grown / MIB);

        app.leave.add_permits(1);
        let mut reading = JoinSet::new();
        for mut stream in standing {
            reading.spawn_local(async move {
                if protocol == Protocol::Http1 {
                    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
                }
                match way {
                    Way::Answers => receive(&mut stream).await,
                    Way::Uploads => {
                        stream.read_u8().await.unwrap();
                    }
                }
            });
        }
        while let Some(read) = reading.join_next().await {
            read.unwrap();
        }
        assert_eq!(app.moved.get(), count * EACH);
        let again = latencies(&shop, protocol).await;
        assert!(again[QUICK / 2] < Duration::from_secs(1), "{again:?}");
    });
}

#[test]
fn twenty_that_do_not_read_their_answers_hold_up_nobody() {
    if is_alone("unread::twenty_that_do_not_read_their_answers_hold_up_nobody") {
        beside(20, Protocol::Http1, Way::Answers);
    }
}

#[test]
fn ninety_that_do_not_read_their_answers_hold_up_nobody() {
    if is_alone("unread::ninety_that_do_not_read_their_answers_hold_up_nobody") {
        beside(90, Protocol::Http1, Way::Answers);
    }
}

#[test]
fn twenty_bodies_that_their_server_does_not_read_hold_up_nobody() {
    if is_alone("unread::twenty_bodies_that_their_server_does_not_read_hold_up_nobody") {
        beside(20, Protocol::Http1, Way::Uploads);
    }
}

#[test]
fn ninety_bodies_that_their_server_does_not_read_hold_up_nobody() {
    if is_alone("unread::ninety_bodies_that_their_server_does_not_read_hold_up_nobody") {
        beside(90, Protocol::Http1, Way::Uploads);
    }
}

#[test]
fn ninety_opaque_streams_whose_client_does_not_read_hold_up_nobody() {
    if is_alone("unread::ninety_opaque_streams_whose_client_does_not_read_hold_up_nobody") {
        beside(90, Protocol::Tcp, Way::Answers);
    }
}

#[test]
fn ninety_opaque_streams_whose_server_does_not_read_hold_up_nobody() {
    if is_alone("unread::ninety_opaque_streams_whose_server_does_not_read_hold_up_nobody") {
        beside(90, Protocol::Tcp, Way::Uploads);
    }
}

#[test]
fn forty_that_do_not_read_hold_up_nobody_where_there_is_little_to_lend() {
    if is_alone("unread::forty_that_do_not_read_hold_up_nobody_where_there_is_little_to_lend") {
        // A quarter of it is one connection's: less than all of them could fill.
        budget::fix(12 * MIB);
        beside(40, Protocol::Http1, Way::Answers);
    }
}
