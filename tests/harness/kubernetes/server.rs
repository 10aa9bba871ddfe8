//! The two processes: etcd and kube-apiserver, on ports that nobody else takes, with a log each.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{ISSUER, audit};
use crate::wait::eventually;

/// An API server on two busy cores needs tens of seconds; only a failure waits for it.
const READY: Duration = Duration::from_secs(120);
/// Below the ports that the kernel hands out by itself, so that nobody gets one while its owner is restarted.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A port may be taken between the look and the use.
const ATTEMPTS: usize = 5;

#[derive(Debug)]
pub(super) struct Server {
    programs: PathBuf,
    folder: PathBuf,
    etcd: Running,
    etcd_port: u16,
    api: Option<Running>,
    port: u16,
}

/// A process that ends when it is dropped.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    pub(super) fn start(programs: &Path, folder: &Path) -> Self {
        let (etcd, etcd_port) = started("etcd", |port| etcd(folder, port, free_port()));
        let (api, port) = started("kube-apiserver", |port| api(programs, folder, etcd_port, port));
        let (programs, folder) = (programs.to_owned(), folder.to_owned());
        Self { programs, folder, etcd, etcd_port, api: Some(api), port }
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(super) fn kill(&mut self) {
        self.api = None;
    }

    pub(super) fn restart(&mut self) {
        assert!(self.etcd.0.try_wait().expect("it is our child").is_none(), "etcd lives");
        let api = api(&self.programs, &self.folder, self.etcd_port, self.port);
        self.api = Some(api.expect("its port is still free"));
    }
}

// A program that ended before it was ready may have lost its port to another one.
fn started(what: &str, start: impl Fn(u16) -> Result<Running, String>) -> (Running, u16) {
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let port = free_port();
        match start(port) {
            Ok(running) => return (running, port),
            Err(log) => said = log,
        }
    }
    panic!("{what} does not start:\n{said}")
}

fn free_port() -> u16 {
    loop {
        // From the same source as the kernel's: nothing here needs to be hard to guess.
        let seed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        let number = seed.local_addr().expect("it is bound").port();
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn etcd(folder: &Path, port: u16, peer_port: u16) -> Result<Running, String> {
    let data = folder.join("etcd");
    let _ = fs::remove_dir_all(&data);
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(&data).args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("default={peer}"),
    ]);
    ready(command, &folder.join("etcd.log"), &["-sf", &format!("{client}/health")])
}

fn api(programs: &Path, folder: &Path, etcd_port: u16, port: u16) -> Result<Running, String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let (audit_policy, audit_log) = audit::write(folder);
    let mut command = Command::new(programs.join("kube-apiserver"));
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // It would refuse to name loopback as an address of the service `kubernetes`.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        format!("--service-account-issuer={ISSUER}"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={audit_policy}"),
        format!("--audit-log-path={audit_log}"),
        "--shutdown-delay-duration=0s".to_owned(),
    ]);
    let url = format!("https://127.0.0.1:{port}/readyz");
    let asked =
        ["-sf", "--cacert", &file("ca.crt"), "--cert", &file("admin.crt"), "--key", &file("admin.key"), &url]
            .map(str::to_owned);
    ready(command, &folder.join("kube-apiserver.log"), &asked.each_ref().map(String::as_str))
}

// Starts it and waits until curl gets what it asks for; what it logged when it ended before.
fn ready(mut command: Command, log: &Path, asked: &[&str]) -> Result<Running, String> {
    let file = File::create(log).expect("the folder is ours");
    let errors = file.try_clone().expect("a file can be shared");
    let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
    let mut running = Running(child.map_err(|error| format!("{command:?}: {error}"))?);
    let is_ready = eventually(&format!("{command:?} is ready"), READY, || {
        if running.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return Ok(false);
        }
        let answered = Command::new("curl").args(["--max-time", "5"]).args(asked).output();
        if answered.is_ok_and(|out| out.status.success()) { Ok(true) } else { Err(tail(log)) }
    });
    if is_ready { Ok(running) } else { Err(tail(log)) }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().rev().take(20).rev().copied().collect::<Vec<_>>().join("\n")
}
