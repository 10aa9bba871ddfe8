//! Two control planes over one folder: one runs, the other stands by and takes its place, also when it is killed.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use douane_ca::{attest, state::StateFolder};
use douane_proto::{id::WorkloadId, wire::issue_request::Evidence};

use crate::{
    plane::Ground,
    sidecar::{issue, request},
};

/// A real process, with what it logs.
pub(crate) struct Process {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Process {
    fn start(ground: &Ground) -> Self {
        Self::start_with(ground, &["--standby"])
    }

    pub(crate) fn start_with(ground: &Ground, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_douane"))
            .args(["ca", "--listen", "127.0.0.1:0", "--dir"])
            .arg(ground.state())
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        Self { child, log }
    }

    fn says(&self, words: &str) -> String {
        let limit = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let left = limit.saturating_duration_since(std::time::Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("it never said {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of("grpc")
    }

    /// Of the first listener of this name, once it is up; the others are not said again.
    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.says("the control plane is up")).unwrap();
        line[listener].as_str().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_whoever_stands_by_takes_the_place_of_one_that_is_killed() {
    let ground = Ground::new();
    let mut running = Process::start(&ground);
    let mut address = running.address();
    let bundle = ground.state().join("bundle.pem");
    let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/till".parse().unwrap();
    let mut serials = BTreeSet::new();
    let mut roots = Vec::new();
    for _ in 0..3 {
        let standing_by = Process::start(&ground);
        standing_by.says("another control plane runs on the folder");

        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let state = StateFolder::new(ground.state());
        let token = attest::create_join_token(&state, &id, Duration::from_secs(600), now).unwrap();
        let (wanted, _) = request(Evidence::JoinToken(token.to_string()), 0);
        let response = issue(address, &bundle, wanted).await.unwrap();
        assert!(serials.insert(response.chain[0].clone()));
        let told = response.bundle.unwrap();
        roots.push((told.roots, told.epoch, told.sequence));

        running.kill();
        address = standing_by.address();
        running = standing_by;
    }
    assert!(roots.iter().all(|one| *one == roots[0]), "one root, one history: {roots:?}");
}
