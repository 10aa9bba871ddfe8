//! A flood of connections where descriptors are few: neighbours notice nothing, probes are answered, and when the flood is
//! over new connections are served again.

use std::{
    cell::Cell,
    env, fs,
    io::{Read as _, stdin},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use douane_proto::mesh::Protocol;
use douane_proxy::{
    admin::{
        health::{Health, Phase},
        public::Public,
    },
    config::Limits,
    limits::{crowd::Crowd, share::Sharing},
    net::listener,
    shutdown::Shutdown,
};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{
    apps::{client1, full, http1, mirror, raw},
    bulk::is_alone,
    pods::{Shop, eventually, run, vip},
};

const FEW: u64 = 256;
/// More than there are descriptors.
const FLOOD: usize = 400;
const FLOODED: &str = "DOUANE_TEST_FLOODED";

fn descriptors(soft: Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    let current = soft.or(limit.maximum);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

/// Another process that opens connections to `address` and keeps those that it gets.
struct Flooder(Child);

impl Flooder {
    fn of(address: SocketAddr) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "descriptors::a_flood_of_connections"]).env(FLOODED, address.to_string());
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        // It may wait for a place in the kernel's queue, which only what it holds already could free.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only in a process that floods.
#[test]
fn a_flood_of_connections() {
    let Ok(address) = env::var(FLOODED) else { return };
    descriptors(None);
    let open = || std::net::TcpStream::connect(&address).ok();
    let _held: Vec<_> = (0..FLOOD).filter_map(|_| open()).collect();
    let _ = stdin().read_to_end(&mut Vec::new());
}

/// Listens as a side of a sidecar does, and tells back what comes; how many were refused.
async fn listen(most: usize) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Rc::new(Cell::new(0));
    let counted = Rc::clone(&refused);
    let serve = |mut stream: TcpStream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    };
    let refuse = move |stream: TcpStream, _, _| {
        let _ = stream.set_zero_linger();
        counted.set(counted.get() + 1);
    };
    let open = Crowd::new(most, Sharing::Whole);
    spawn_local(listener::run(listener, open, Shutdown::default(), serve, (|| false, refuse)));
    (address, refused)
}

async fn is_served(address: SocketAddr) -> bool {
    let served = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"x").await?;
        stream.read_u8().await
    };
    tokio::time::timeout(Duration::from_secs(5), served).await.is_ok_and(|served| served.is_ok())
}

async fn eventually_served(address: SocketAddr) {
    for _ in 0..20 {
        if is_served(address).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody is served when the flood is over");
}

/// A neighbour whose connections are open already: asks without a pause, and is always answered.
async fn asks_on(shop: &Shop) -> Rc<Cell<usize>> {
    let mut client = client1(shop.web.connect(vip()).await).await;
    let answered = Rc::new(Cell::new(0));
    let counted = Rc::clone(&answered);
    spawn_local(async move {
        loop {
            let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            answer.into_body().collect().await.unwrap();
            client.ready().await.unwrap();
            counted.set(counted.get() + 1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    answered
}

#[test]
fn a_flood_of_connections_where_descriptors_are_few_harms_no_neighbour_and_no_probe() {
    let name =
        "descriptors::a_flood_of_connections_where_descriptors_are_few_harms_no_neighbour_and_no_probe";
    if !is_alone(name) {
        return;
    }
    descriptors(Some(FEW));
    run(async {
        let limits = Limits::default().within(FEW);
        let shop = Shop::open_with(limits, Protocol::Http1, |stream| http1(stream, mirror)).await;
        let answered = asks_on(&shop).await;
        let goes_on = async |what: &str| {
            let more = answered.get() + 20;
            eventually(what, || answered.get() >= more).await;
        };
        goes_on("it begins").await;
        let probes = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probed = probes.local_addr().unwrap();
        let health = Health::default();
        health.set(Phase::Ready);
        let public = Public { health, telemetry: Rc::clone(&shop.orders.telemetry), asker: None };
        spawn_local(public.run(probes));

        // Under the ceiling that follows from their number, descriptors never run out.
        let (address, refused) = listen(limits.connections).await;
        let flooder = Flooder::of(address);
        eventually("the flood is refused", || refused.get() >= FLOOD / 2).await;
        for _ in 0..5 {
            let mut probe = TcpStream::connect(probed).await.unwrap();
            let told = raw(&mut probe, b"GET /readyz HTTP/1.1\r\nhost: pod\r\n\r\n", "").await;
            assert!(told.starts_with("HTTP/1.1 200"), "{told}");
            goes_on("a neighbour is answered beside the flood").await;
        }
        drop(flooder);
        eventually_served(address).await;

        // And should they run out all the same:
        let (address, _) = listen(10 * FLOOD).await;
        let flooder = Flooder::of(address);
        let (mut held, mut last) = (Vec::new(), Vec::new());
        // Where the flood has filled the kernel's queue, nobody who calls is answered.
        let calls = || tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address));
        while let Ok(Ok(stream)) = calls().await {
            held.push(stream);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let none_left = loop {
            match fs::File::open("/dev/null") {
                Ok(file) => last.push(file),
                Err(error) => break error.raw_os_error(),
            }
        };
        assert_eq!(none_left, Some(rustix::io::Errno::MFILE.raw_os_error()));
        goes_on("a neighbour is answered without descriptors").await;
        goes_on("and again").await;
        drop((held, last, flooder));
        eventually_served(address).await;
        goes_on("a neighbour is answered when it is over").await;
    });
}
