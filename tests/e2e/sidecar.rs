//! A sidecar and the real control plane in one process, over loopback: how it gains its footing, keeps it, and ends.
//! Traffic is tested elsewhere; nothing is redirected here.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use douane_ca::config::{Config as CaConfig, Tokens};
use douane_examples::lab::issuer::{AUDIENCE, Bearer, ISSUER, Issuer};
use douane_proto::id::TrustDomain;
use douane_proxy::{
    admin::client,
    app::{self, App},
    config::{Config, ControlPlaneAddress, Drain, Limits, Ports, Telemetry, Workload},
    shutdown::Stop,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {douane.io/inject: enabled}}
spec: {serviceAccountName: web, containers: [{name: web, image: web}]}
status: {podIP: 10.77.9.9, podIPs: [{ip: 10.77.9.9}]}
"#;

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("douane-sidecar-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("resources")).unwrap();
        fs::write(path.join("resources/pod.yaml"), POD).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A control plane on a thread of its own.
struct ControlPlane {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl ControlPlane {
    fn start(folder: &Folder, listen: SocketAddr) -> Self {
        let config = CaConfig {
            dir: Some(folder.path("state")),
            listen: vec![listen],
            resources: vec![folder.path("resources")],
            leaf_ttl: Duration::from_secs(10),
            tokens: Some(Tokens {
                jwks: folder.path("jwks.json").display().to_string(),
                jwks_trust: None,
                issuer: ISSUER.to_owned(),
                audience: AUDIENCE.to_owned(),
            }),
            ..CaConfig::default()
        };
        let stop = CancellationToken::new();
        let (told, heard) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let app = douane_ca::app::App::bind(config).await.unwrap();
                told.send(app.addresses().unwrap().grpc[0]).unwrap();
                app.run(stopped).await.unwrap();
            });
        });
        Self { address: heard.recv().unwrap(), stop, thread: Some(thread) }
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A folder with the issuer's keys and a token of the pod `web-0`, whose namespace is told.
fn with_token(namespace: &str) -> Folder {
    let folder = Folder::new();
    let issuer = Issuer::new().unwrap();
    fs::write(folder.path("jwks.json"), issuer.jwks().unwrap()).unwrap();
    let bearer = Bearer { namespace, service_account: "web", pod: "web-0", pod_uid: "1" };
    fs::write(folder.path("token"), issuer.token(bearer, SystemTime::now()).unwrap()).unwrap();
    folder
}

fn sidecar(folder: &Folder, control_plane: SocketAddr, bundle: &Path) -> App {
    drained_so(folder, control_plane, bundle, Drain::default())
}

fn drained_so(folder: &Folder, control_plane: SocketAddr, bundle: &Path, drain: Drain) -> App {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    App::bind(Config {
        namespace: "shop".to_owned(),
        pod: "web-0".to_owned(),
        pod_ips: vec![Ipv4Addr::new(10, 77, 9, 9).into()],
        control_plane: format!("https://{control_plane}").parse::<ControlPlaneAddress>().unwrap(),
        control_plane_id: Config::control_plane_of(&domain).unwrap(),
        bundle_file: bundle.to_owned(),
        token_file: folder.path("token"),
        mark: None,
        leaf_lifetime: None,
        run_dir: folder.path("run"),
        workload: Workload::default(),
        ports: Ports { outbound: 0, inbound: 0, health: 0 },
        telemetry: Telemetry { log: "off".to_owned(), ..Telemetry::default() },
        limits: Limits::default(),
        byte_budget: None,
        drain,
    })
    .unwrap()
}

async fn get(health: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, health.port())).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the admin socket says, asked from a thread as any program would.
async fn ask(run_dir: PathBuf, command: &'static str) -> Value {
    let asked = tokio::task::spawn_blocking(move || client::ask(&run_dir, command));
    serde_json::from_str(&asked.await.unwrap().unwrap()).unwrap()
}

fn on_the_sidecars_runtime(test: impl Future<Output = ()>) {
    app::runtime().unwrap().block_on(test);
}

#[test]
fn a_sidecar_gains_its_footing_renews_outlives_its_control_plane_and_drains() {
    on_the_sidecars_runtime(async {
        let folder = with_token("shop");
        let mut control_plane = ControlPlane::start(&folder, any_port());
        let app = sidecar(&folder, control_plane.address, &folder.path("state/bundle.pem"));
        let health = app.addresses().unwrap().health;
        let stop = Stop::default();
        let running = tokio::task::spawn_local(app.run(stop.clone()));
        eventually("ready", async || get(health, "/readyz").await.contains("200 OK")).await;

        let run_dir = folder.path("run");
        let first = ask(run_dir.clone(), "certificates").await;
        assert_eq!(first["spiffe_id"], "spiffe://cluster.local/ns/shop/sa/web");
        eventually("a second generation", async || {
            ask(run_dir.clone(), "certificates").await["generation"].as_u64() > first["generation"].as_u64()
        })
        .await;

        let before = ask(run_dir.clone(), "snapshot").await;
        assert_eq!(before["own"]["pod"], "shop/web-0");
        control_plane.end();
        assert!(get(health, "/readyz").await.contains("200 OK"), "the last good state stays");
        assert_eq!(ask(run_dir.clone(), "snapshot").await["epoch"], before["epoch"]);
        let _again = ControlPlane::start(&folder, control_plane.address);
        eventually("a new epoch", async || {
            ask(run_dir.clone(), "snapshot").await["epoch"] != before["epoch"]
        })
        .await;

        stop.ask();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_sidecar_that_is_to_end_says_so_and_serves_on_for_the_configured_delay() {
    on_the_sidecars_runtime(async {
        let folder = with_token("shop");
        let control_plane = ControlPlane::start(&folder, any_port());
        let drain = Drain { delay: Duration::from_secs(2), limit: Duration::from_secs(1) };
        let app = drained_so(&folder, control_plane.address, &folder.path("state/bundle.pem"), drain);
        let addresses = app.addresses().unwrap();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, addresses.inbound.port()));
        let stop = Stop::default();
        let running = tokio::task::spawn_local(app.run(stop.clone()));
        eventually("ready", async || get(addresses.health, "/readyz").await.contains("200 OK")).await;

        let began = Instant::now();
        stop.ask();
        eventually("not ready", async || get(addresses.health, "/readyz").await.contains("503")).await;
        let door = TcpStream::connect(peer).await;
        // On a machine that was busy for as long as that, the delay may be over.
        assert!(door.is_ok() || began.elapsed() > drain.delay, "peers still find an open door: {door:?}");

        running.await.unwrap().unwrap();
        assert!(began.elapsed() >= drain.delay, "{:?}", began.elapsed());
        assert!(TcpStream::connect(peer).await.is_err(), "then it is closed");
    });
}

#[test]
fn a_certificate_for_somebody_else_is_not_taken() {
    on_the_sidecars_runtime(async {
        let folder = with_token("elsewhere");
        let control_plane = ControlPlane::start(&folder, any_port());
        never_ready(&folder, &control_plane, &folder.path("state/bundle.pem")).await;
    });
}

#[test]
fn a_control_plane_that_the_bundle_does_not_vouch_for_is_not_trusted() {
    on_the_sidecars_runtime(async {
        let (folder, other) = (with_token("shop"), with_token("shop"));
        let control_plane = ControlPlane::start(&folder, any_port());
        let _other = ControlPlane::start(&other, any_port());
        never_ready(&folder, &control_plane, &other.path("state/bundle.pem")).await;
    });
}

async fn never_ready(folder: &Folder, control_plane: &ControlPlane, bundle: &Path) {
    let app = sidecar(folder, control_plane.address, bundle);
    let health = app.addresses().unwrap().health;
    let stop = Stop::default();
    let running = tokio::task::spawn_local(app.run(stop.clone()));
    eventually("failed attempts", async || {
        let metrics = get(health, "/metrics").await;
        let failures = metrics.lines().find(|line| line.contains("renewal") && line.contains("failed"));
        failures.is_some_and(|line| !line.ends_with(" 0"))
    })
    .await;
    let answer = get(health, "/readyz").await;
    assert!(answer.contains("503") && answer.contains("waiting for the first certificate"), "{answer}");
    stop.ask();
    running.await.unwrap().unwrap();
}
