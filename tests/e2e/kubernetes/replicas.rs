//! Two control planes, as real processes, on one Secret and one Lease of a real API server.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use douane_ca::{
    admin::{Answer, Command as Order, call},
    authority::Status,
    state::StateFolder,
};
use douane_proto::svid::Svid;
use douane_tests::kubernetes::{Cluster, ISSUER};
use tokio::time::sleep;

use super::{
    plane::{Pod, SHOP, admit, installed, run_pod},
    sidecar::{self, Watch},
};

/// Two processes, an API server and a debug build; only a failure waits for it.
const LIMIT: Duration = Duration::from_secs(180);
/// What a replica that is gone keeps the lease for, and the leader's looks.
const TAKEN_OVER: Duration = Duration::from_secs(15 + 5);

const WEB: Pod<'_> = Pod {
    namespace: "shop",
    name: "web-1",
    app: "web",
    labels: "",
    sidecar: true,
    port: ("http", 8080),
    addresses: &["10.77.0.10"],
};

/// A control plane that runs.
struct Replica {
    child: Child,
    state: PathBuf,
    log: mpsc::Receiver<String>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replica {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let folder = cluster.folder();
        let (config, jwks, seal) = (folder.join("mesh.yaml"), folder.join("jwks.json"), folder.join("seal"));
        if !jwks.exists() {
            fs::write(&seal, [7; 32]).unwrap();
            fs::set_permissions(&seal, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let text = format!("authority: {{rootLead: 1s, rootSeal: {{keyFile: {}}}}}\n", seal.display());
            fs::write(&config, text).unwrap();
            fs::write(&jwks, cluster.raw("/openid/v1/jwks")).unwrap();
        }
        let state = folder.join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_plane-under-test"))
            .args(["ca", "--kubernetes", "--state", "secret", "--leaf-ttl", "15s"])
            .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--token-issuer", ISSUER])
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig_of("douane-system", "douane-ca"))
            .arg("--config")
            .arg(&config)
            .arg("--jwks")
            .arg(&jwks)
            .arg("--dir")
            .arg(&state)
            .env_remove("POD_NAME")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                eprintln!("{name}: {line}");
                // Whoever listened may have left.
                let _ = told.send(line);
            }
        });
        Self { child, state, log }
    }

    fn address(&self) -> SocketAddr {
        let began = Instant::now();
        loop {
            let line = self.log.recv_timeout(LIMIT.saturating_sub(began.elapsed())).expect("it comes up");
            if line.contains("the control plane is up") {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                return line["grpc"].as_str().unwrap().parse().unwrap();
            }
        }
    }

    fn bundle(&self) -> PathBuf {
        self.state.join("bundle.pem")
    }

    fn roots(&self) -> usize {
        fs::read_to_string(self.bundle()).unwrap_or_default().matches("BEGIN CERTIFICATE").count()
    }

    /// Who leads says how things are; nobody else does.
    async fn order(&self, order: Order) -> Option<(Option<String>, Status)> {
        let folder = StateFolder::new(&self.state);
        match tokio::task::spawn_blocking(move || call(&folder, &order)).await.unwrap().ok()? {
            Answer::Done { authority, status } => Some((authority, *status)),
            _ => None,
        }
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut found: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "it never came: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

// By the roots that `knows` has published.
async fn svid(cluster: &Cluster, address: SocketAddr, knows: &Replica) -> Option<Svid> {
    let bound = ["--audience", "douane-ca", "--bound-object-kind", "Pod", "--bound-object-name", WEB.name];
    let token = cluster.token(WEB.namespace, WEB.app, &bound);
    sidecar::svid(address, &knows.bundle(), token).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn g11_two_replicas_share_a_secret_and_when_the_one_that_leads_is_killed_the_other_goes_on() {
    let cluster = installed();
    let said = cluster.kubectl(&["apply", "-f", &format!("{SHOP}/namespaces.yaml")]);
    assert!(said.ok, "{}", said.err);
    run_pod(&cluster, &WEB);

    // Both at once, where there is nothing yet: one root, sealed.
    let mut replicas = [Replica::start(&cluster, "one"), Replica::start(&cluster, "two")];
    let mut addresses = [replicas[0].address(), replicas[1].address()];
    let text = "go-template={{.data.authority | base64decode}}";
    let state =
        cluster.kubectl(&["get", "secret", "-n", "douane-system", "douane-authority", "-o", text]).out;
    assert!(state.contains("\"sealed\"") && !state.contains("\"plain\""), "no key lies there as it is");
    assert_eq!([replicas[0].roots(), replicas[1].roots()], [1, 1]);
    admit(&cluster);
    let again =
        cluster.kubectl(&["get", "secret", "-n", "douane-system", "douane-authority", "-o", text]).out;
    assert!(again == state, "an upgrade applies the empty Secret again, and changes nothing in it");
    for (address, other) in [(addresses[0], 1), (addresses[1], 0)] {
        let other = &replicas[other];
        eventually("each issues below the root of both", || svid(&cluster, address, other)).await;
    }
    let leads = eventually("one leads", || async {
        let [one, two] = [replicas[0].order(Order::Status).await, replicas[1].order(Order::Status).await];
        assert!(one.is_none() || two.is_none(), "and only one");
        one.is_some().then_some(0).or(two.is_some().then_some(1))
    })
    .await;
    if leads == 1 {
        replicas.swap(0, 1);
        addresses.swap(0, 1);
    }
    let [mut leader, follower] = replicas;

    // A rotation by the one is followed by the other.
    let (_, before) = leader.order(Order::Status).await.unwrap();
    let old = before.active().unwrap().id.clone();
    let web = eventually("a certificate", || svid(&cluster, addresses[0], &leader)).await;
    let stream = Watch::open(addresses[0], &leader.bundle(), &web, "shop/web-1").await.unwrap();
    assert_eq!(stream.snapshot.own.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    let (coming, _) = leader.order(Order::RotateRoot { force: false }).await.expect("it is begun");
    let coming = coming.unwrap();
    let began = Instant::now();
    eventually("the follower knows the new root", || async { (follower.roots() == 2).then_some(()) }).await;
    eprintln!("a new root was followed {:?} after it was published", began.elapsed());

    // Who leads is killed: the sidecar finds the other at once, which soon leads, and ends what was begun.
    leader.child.kill().unwrap();
    leader.child.wait().unwrap();
    let killed = Instant::now();
    assert!(Watch::open(addresses[1], &follower.bundle(), &web, "shop/web-1").await.is_ok(), "at the other");
    eventually("the other issues", || svid(&cluster, addresses[1], &follower)).await;
    let lease = |name: &str| cluster.get("douane-system", "lease/douane-authority")["spec"][name].clone();
    eventually("the other leads", || follower.order(Order::Status)).await;
    let took = killed.elapsed();
    eprintln!("the other led {took:?} after the first was killed; transitions {}", lease("leaseTransitions"));
    assert!(took < TAKEN_OVER * 2, "{took:?}");
    follower.order(Order::RotateIntermediate).await.expect("it may change the authority now");
    eventually("the new root signs", || async {
        let (_, status) = follower.order(Order::Status).await?;
        (status.active()?.id == coming).then_some(())
    })
    .await;
    eprintln!("the rotation that the first began was at its end {:?} after it was killed", killed.elapsed());
    assert_ne!(old, coming);
    eventually("below the new root", || svid(&cluster, addresses[1], &follower)).await;

    // The first comes back, and follows.
    let back = Replica::start(&cluster, "three");
    let address = back.address();
    eventually("it issues", || svid(&cluster, address, &follower)).await;
    assert!(back.order(Order::Status).await.is_none(), "it follows");
    // Who stops by itself gives the lease back.
    let mut follower = follower;
    douane_tests::processes::signal(follower.child.id(), "TERM");
    follower.child.wait().unwrap();
    let stopped = Instant::now();
    eventually("the next leads", || back.order(Order::Status)).await;
    eprintln!("after an orderly stop the next led after {:?}", stopped.elapsed());
}
