//! One sidecar and the real control plane in one process, over loopback, for tests that need no traffic: nothing is
//! redirected here.

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
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {douane.io/inject: enabled}}
spec: {serviceAccountName: web, containers: [{name: web, image: web}]}
status: {podIP: 10.77.9.9, podIPs: [{ip: 10.77.9.9}]}
"#;

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("douane-sidecar-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("resources")).unwrap();
        fs::write(path.join("resources/pod.yaml"), POD).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A control plane on a thread of its own.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl ControlPlane {
    pub(crate) fn start(folder: &Folder, listen: SocketAddr) -> Self {
        let config = CaConfig {
            dir: Some(folder.path("state")),
            listen: vec![listen],
            resources: vec![folder.path("resources")],
            leaf_ttl: Duration::from_secs(10),
            dns_names: vec!["istiod.istio-system.svc".to_owned()],
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

    pub(crate) fn end(&mut self) {
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

/// A folder with the issuer's keys and a token of the pod `web-0`, whose namespace is told.
pub(crate) fn with_token(namespace: &str) -> Folder {
    let folder = Folder::new();
    let issuer = Issuer::new().unwrap();
    fs::write(folder.path("jwks.json"), issuer.jwks().unwrap()).unwrap();
    let bearer = Bearer { namespace, service_account: "web", pod: "web-0", pod_uid: "1" };
    fs::write(folder.path("token"), issuer.token(bearer, SystemTime::now()).unwrap()).unwrap();
    folder
}

pub(crate) fn sidecar(folder: &Folder, control_plane: SocketAddr, bundle: &Path) -> App {
    drained_so(folder, control_plane, bundle, Drain::default())
}

pub(crate) fn drained_so(folder: &Folder, control_plane: SocketAddr, bundle: &Path, drain: Drain) -> App {
    App::bind(Config { drain, ..config(folder, control_plane, bundle) }).unwrap()
}

/// A sidecar beside another of the same pod, whose identity comes from this Workload API and from nothing else.
pub(crate) fn following(folder: &Folder, control_plane: SocketAddr, endpoint: String) -> App {
    let usual = config(folder, control_plane, &folder.path("state/bundle.pem"));
    App::bind(Config {
        identity_source: Some(endpoint),
        token_file: folder.path("there is none"),
        run_dir: folder.path("beside"),
        workload: Workload::default(),
        ..usual
    })
    .unwrap()
}

fn config(folder: &Folder, control_plane: SocketAddr, bundle: &Path) -> Config {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    Config {
        namespace: "shop".to_owned(),
        pod: "web-0".to_owned(),
        pod_ips: vec![Ipv4Addr::new(10, 77, 9, 9).into()],
        control_plane: format!("https://{control_plane}").parse::<ControlPlaneAddress>().unwrap(),
        control_plane_id: Config::control_plane_of(&domain).unwrap(),
        bundle_file: bundle.to_owned(),
        token_file: folder.path("token"),
        identity_source: None,
        mark: None,
        leaf_lifetime: None,
        run_dir: folder.path("run"),
        workload: Workload { socket: Some(folder.path("run/workload.sock")), uids: None },
        ports: Ports { outbound: 0, inbound: 0, health: 0 },
        telemetry: Telemetry { log: "off".to_owned(), ..Telemetry::default() },
        limits: Limits::default(),
        byte_budget: None,
        drain: Drain::default(),
        app_probes: douane_proxy::config::probes::AppProbes::default(),
    }
}

pub(crate) async fn get(health: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, health.port())).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the admin socket says, asked from a thread as any program would.
pub(crate) async fn ask(run_dir: PathBuf, command: &'static str) -> Value {
    let asked = tokio::task::spawn_blocking(move || client::ask(&run_dir, command));
    serde_json::from_str(&asked.await.unwrap().unwrap()).unwrap()
}

pub(crate) fn on_the_sidecars_runtime(test: impl Future<Output = ()>) {
    app::runtime().unwrap().block_on(test);
}
