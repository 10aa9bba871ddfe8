//! How much the office bears, as one command on a quiet machine:
//! `cargo test --release -p douane-ca --test control_plane bench -- --ignored --nocapture --test-threads 1`.
//!
//! The control plane is a process of its own, with JWT verification and the audit log on; whoever asks shares the machine
//! with it, and costs about as much. Latency is counted from the moment at which a request was due, not from when it was
//! sent, so that a stall is not hidden by those that wait behind it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use douane_proto::{
    svid::Svid,
    wire::{IssueRequest, identity_client::IdentityClient, issue_request::Evidence},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    plane::{Ground, ISSUER},
    sidecar::{Watch, issue, request, tls},
};

/// Sidecars that renew: each has an address, an identity and a connection of its own.
const SIDECARS: usize = 400;
/// Each measurement.
const SPAN: Duration = Duration::from_secs(10);
/// Certificates by tokens that nobody has shown before.
const NEW_TOKENS: usize = 12_800;
/// Sidecars that start at once, and streams.
const HERD: usize = 10_000;

struct Plane {
    process: Child,
    address: SocketAddr,
}

impl Plane {
    fn start(ground: &Ground) -> Self {
        let home = ground.home.path();
        let path = home.join("config.yaml");
        let text = format!(
            "dir: {}\nlisten: ['127.0.0.1:0']\nresources: [{}]\nleafTtl: 1h\ntokens: {{jwks: {}, issuer: '{ISSUER}'}}\n",
            ground.state().display(),
            ground.mesh().display(),
            home.join("jwks.json").display()
        );
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_douane"));
        command.args(["ca", "--config"]).arg(&path).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if let Some(address) = line["grpc"].as_str() {
                break address.parse().unwrap();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    // Resident, in MiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    // Seconds of processor time.
    fn busy(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Dials from an address of its own, as pods do.
#[derive(Clone)]
struct Dial {
    from: Ipv4Addr,
    to: SocketAddr,
    tls: TlsConnector,
}

impl Dial {
    fn new(number: usize, to: SocketAddr, tls: TlsConnector) -> Self {
        let number = u32::try_from(number).unwrap();
        // 127.1.0.1 and on.
        Self { from: Ipv4Addr::from_bits(0x7f01_0001 + number), to, tls }
    }

    async fn connect(self) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("douane-ca.douane-system.svc").unwrap();
        self.tls.connect(name, stream).await
    }

    async fn client(self) -> Result<IdentityClient<Channel>, tonic::transport::Error> {
        let channel = Endpoint::from_static("http://douane-ca").connect_with_connector(self).await?;
        Ok(IdentityClient::new(channel))
    }
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect().await.map(TokioIo::new) })
    }
}

fn petition(ground: &Ground, number: usize) -> IssueRequest {
    let token = ground.token(&format!("ns-{}", number % 100), &format!("app-{number}"));
    request(Evidence::ServiceAccountToken(token), 0).0
}

// With a certificate of its own, which it renews.
async fn renewing(ground: &Ground, plane: &Plane, number: usize) -> Sidecar {
    let bundle = ground.state().join("bundle.pem");
    let (first, key) = {
        let token = ground.token(&format!("ns-{}", number % 100), &format!("app-{number}"));
        request(Evidence::ServiceAccountToken(token), 0)
    };
    let stranger = Dial::new(number, plane.address, tls(&bundle, None));
    let answer = stranger.client().await.unwrap().issue(first.clone()).await.unwrap().into_inner();
    let svid = Svid::parse(answer.chain, key.serialize_der().into()).unwrap();
    let client = Dial::new(number, plane.address, tls(&bundle, Some(&svid))).client().await.unwrap();
    (client, first)
}

// Whoever is sent away for a while is no fault; anything else is.
fn is_issued<T>(answer: Result<T, Status>) -> bool {
    answer.inspect_err(|status| assert_eq!(status.code(), Code::ResourceExhausted, "{status}")).is_ok()
}

fn share(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

type Sidecar = (IdentityClient<Channel>, IssueRequest);

fn with_new_tokens(ground: &Ground, sidecars: &[Sidecar], lane: usize) -> Vec<Sidecar> {
    let with = |number: usize| {
        let (client, request) = sidecars[number % SIDECARS].clone();
        let account = format!("app-{}", number % SIDECARS);
        let token = ground.token_with("new", &account, |claims| claims["jti"] = number.into());
        (client, IssueRequest { evidence: Some(Evidence::ServiceAccountToken(token)), ..request })
    };
    (0..NEW_TOKENS).skip(lane).step_by(64).map(with).collect()
}

// The runtime's timers go by milliseconds: whoever waits by them comes late by one, and it would be counted here.
async fn at_a_steady_pace(sidecars: &[Sidecar], rate: f64) -> Vec<JoinHandle<Option<Duration>>> {
    let (sidecars, runtime) = (sidecars.to_vec(), Handle::current());
    let pace = move || {
        let begin = Instant::now();
        let ask = |number: usize| {
            let due = begin + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (mut client, request) = sidecars[number % SIDECARS].clone();
            runtime.spawn(async move { is_issued(client.issue(request).await).then(|| due.elapsed()) })
        };
        (0..(rate * SPAN.as_secs_f64()) as usize).map(ask).collect()
    };
    tokio::task::spawn_blocking(pace).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark: it wants a quiet machine and a release build"]
async fn bench_issuances_a_second_and_their_latency_at_half_of_it() {
    let ground = Ground::new();
    let plane = Plane::start(&ground);
    let mut sidecars = Vec::new();
    for number in 0..SIDECARS {
        sidecars.push(renewing(&ground, &plane, number).await);
    }

    let (done, end, busy) = (Arc::new(AtomicUsize::new(0)), Instant::now() + SPAN, plane.busy());
    // 64 at a time: enough to keep every core busy.
    let loops = (0..64).map(|lane| {
        let mut lane: Vec<_> = sidecars.iter().skip(lane).step_by(64).cloned().collect();
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            while Instant::now() < end {
                for (client, request) in &mut lane {
                    if is_issued(client.issue(request.clone()).await) {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
    });
    for one in loops.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let count = done.load(Ordering::Relaxed);
    let rate = count as f64 / SPAN.as_secs_f64();
    let cost = (plane.busy() - busy) / count as f64;
    println!("closed loop: {rate:.0} certificates/s; each costs the control plane {:.0} us", cost * 1e6);
    println!("             which is {:.0}/s on two cores of its own", 2.0 / cost);

    // Pods show the token that their kubelet wrote last, for most of an hour; this is what the first certificate by one costs.
    let fresh: Vec<Vec<_>> = (0..64).map(|lane| with_new_tokens(&ground, &sidecars, lane)).collect();
    let (busy, count) = (plane.busy(), fresh.iter().map(Vec::len).sum::<usize>());
    let lanes = fresh.into_iter().map(|lane| {
        tokio::spawn(async move {
            for (mut client, request) in lane {
                let _ = is_issued(client.issue(request).await);
            }
        })
    });
    for one in lanes.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    println!("by a new token each: {:.0} us", (plane.busy() - busy) / count as f64 * 1e6);

    for (name, rate) in [("half load", rate / 2.0), ("a quarter", rate / 4.0)] {
        let mut took = Vec::new();
        for one in at_a_steady_pace(&sidecars, rate).await {
            took.push(one.await.unwrap());
        }
        let asked = took.len();
        let mut took: Vec<Duration> = took.into_iter().flatten().collect();
        took.sort();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|at| share(&took, at));
        let sent_away = asked - took.len();
        println!(
            "open loop, {name}: {rate:.0}/s; p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}; {sent_away} sent away"
        );
    }
    println!("resident: {} MiB", plane.resident());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark: it wants a quiet machine and a release build"]
async fn bench_ten_thousand_sidecars_that_start_at_once() {
    let ground = Arc::new(Ground::new());
    let plane = Plane::start(&ground);
    let connector = tls(&ground.state().join("bundle.pem"), None);
    let petitions: Vec<_> = (0..HERD).map(|number| petition(&ground, number)).collect();
    let (begin, tries) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let all = petitions.into_iter().enumerate().map(|(number, petition)| {
        let (dial, tries) = (Dial::new(number, plane.address, connector.clone()), Arc::clone(&tries));
        tokio::spawn(async move {
            // As a sidecar does: at once, then after growing waits.
            for attempt in 0..30_u32 {
                tries.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut client) = dial.clone().client().await
                    && client.issue(petition.clone()).await.is_ok()
                {
                    return begin.elapsed();
                }
                let longest = 200 << attempt.min(4);
                sleep(Duration::from_millis(rand::random_range(longest / 2..=longest))).await;
            }
            panic!("never certified");
        })
    });
    let mut took = Vec::new();
    for one in all.collect::<Vec<_>>() {
        took.push(one.await.unwrap());
    }
    took.sort();
    let [half, last] = [0.5, 1.0].map(|at| share(&took, at));
    let (tries, busy) = (tries.load(Ordering::Relaxed), plane.busy());
    println!("{HERD} sidecars at once: half certified in {half:?}, all in {last:?}, {tries} attempts");
    println!("each cost the control plane {:.0} us, handshakes and all", busy / HERD as f64 * 1e6);
    println!("resident: {} MiB", plane.resident());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark: it wants a quiet machine and a release build"]
async fn bench_memory_of_ten_thousand_streams() {
    const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {douane.io/inject: enabled}}
spec: {serviceAccountName: web, containers: [{name: web, image: web}]}
status: {podIP: 10.77.9.9, podIPs: [{ip: 10.77.9.9}]}
"#;
    let ground = Ground::new();
    ground.write("pod.yaml", POD);
    let plane = Plane::start(&ground);
    let bundle: PathBuf = ground.state().join("bundle.pem");
    let (first, key) = request(Evidence::ServiceAccountToken(ground.token("shop", "web")), 0);
    let answer = issue(plane.address, &bundle, first).await.unwrap();
    let svid = Svid::parse(answer.chain, key.serialize_der().into()).unwrap();
    println!("resident without a stream: {} MiB", plane.resident());
    let mut streams = Vec::new();
    for number in 0..HERD {
        // No more at a second than one address may begin.
        while number as f64 > 1500.0 + begin_rate(&streams) {
            sleep(Duration::from_millis(10)).await;
        }
        streams.push((
            Instant::now(),
            Watch::open(plane.address, &bundle, Some(&svid), "shop/web-1").await.unwrap(),
        ));
    }
    println!("resident with {HERD} streams: {} MiB", plane.resident());
}

fn begin_rate(streams: &[(Instant, Watch)]) -> f64 {
    streams.first().map_or(0.0, |(first, _)| first.elapsed().as_secs_f64() * 190.0)
}
