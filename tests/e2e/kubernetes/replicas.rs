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
    plane::{Pod, SHOP, admit, installed, keep_state, run_pod},
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
        Self::start_as(cluster, name, None)
    }

    /// In a pod of this name.
    fn start_as(cluster: &Cluster, name: &str, pod: Option<&str>) -> Self {
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_plane-under-test"));
        command
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
            .envs(pod.map(|pod| ("POD_NAME", pod)))
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
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

    /// For gRPC.
    fn address(&self) -> SocketAddr {
        self.addresses().0
    }

    /// For gRPC, and of its metrics.
    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let line: serde_json::Value = serde_json::from_str(&self.says("the control plane is up")).unwrap();
        let of = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        (of("grpc"), of("metrics"))
    }

    fn says(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(began.elapsed());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("it never said {words:?}"));
            if line.contains(words) {
                return line;
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
        match self.answer(order).await? {
            Answer::Done { authority, status } => Some((authority, *status)),
            _ => None,
        }
    }

    async fn answer(&self, order: Order) -> Option<Answer> {
        let folder = StateFolder::new(&self.state);
        tokio::task::spawn_blocking(move || call(&folder, &order)).await.unwrap().ok()
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

    // Who follows tells what its own sidecars tell, and who may give orders.
    let traffic = follower.answer(Order::Traffic { window_seconds: 10, namespace: None }).await;
    assert!(matches!(traffic, Some(Answer::Traffic(_))), "{traffic:?}");
    let refused = follower.answer(Order::RotateIntermediate).await;
    assert!(
        matches!(&refused, Some(Answer::Refused(why)) if why.contains("another replica leads")),
        "{refused:?}"
    );

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn g11_replicas_take_their_places_again_when_the_map_was_deleted_and_end_where_another_has_one() {
    let cluster = installed();
    let said = cluster.kubectl(&["apply", "-f", &format!("{SHOP}/namespaces.yaml")]);
    assert!(said.ok, "{}", said.err);
    run_pod(&cluster, &WEB);
    let map = || cluster.get("douane-system", "configmap/douane-replicas")["data"].clone();

    let one = Replica::start_as(&cluster, "one", Some("a"));
    let mut two = Replica::start_as(&cluster, "two", Some("b"));
    let addresses = [one.addresses(), two.addresses()];
    let readiness = |number: usize| {
        let url = format!("http://{}/readyz", addresses[number].1);
        let out = Command::new("curl").args(["-s", &url]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    for (address, _) in addresses {
        eventually("each issues", || svid(&cluster, address, &one)).await;
    }
    let before = map();
    assert!(before["before"].is_null(), "a first start waits for nobody: {before}");
    let place = |holder: &str| (1..=2).find(|number| before[format!("holder-{number}")] == holder).unwrap();
    let places = [place("a"), place("b")];

    // Gone: whoever cannot say what it signs signs nothing, says so, and does not end.
    assert!(cluster.kubectl(&["delete", "configmap", "-n", "douane-system", "douane-replicas"]).ok);
    for (number, (address, _)) in addresses.into_iter().enumerate() {
        eventually("it is not ready", || async {
            readiness(number).contains("nothing is signed").then_some(())
        })
        .await;
        assert!(svid(&cluster, address, &one).await.is_none());
    }
    keep_state(&cluster);
    let applied = Instant::now();
    for (number, (address, _)) in addresses.into_iter().enumerate() {
        eventually("it issues again", || svid(&cluster, address, &one)).await;
        eventually("it is ready", || async { (readiness(number) == "ready\n").then_some(()) }).await;
    }
    eprintln!("both issued again {:?} after the ConfigMap was applied", applied.elapsed());
    let after = map();
    for (number, holder) in places.iter().zip(["a", "b"]) {
        assert_eq!(after[format!("holder-{number}")], holder, "the same place: {after}");
        assert!(after[format!("horizon-{number}")].is_string(), "what it signed is said anew: {after}");
    }
    assert!(after["before"].as_str().unwrap().contains("signedUntil"), "{after}");

    // The second's place is given to another: it writes nothing there, ends, and finds another when it is started again.
    let [_, number] = places;
    let horizon = r#"{"signedUntil":1}"#;
    let taken = serde_json::json!({"data": {
        format!("holder-{number}"): "c",
        format!("horizon-{number}"): horizon,
    }});
    let patch = ["patch", "configmap", "-n", "douane-system", "douane-replicas", "-p", &taken.to_string()];
    assert!(cluster.kubectl(&patch).ok);
    two.says("is another's by now");
    assert!(!two.child.wait().unwrap().success(), "so that Kubernetes starts it again");
    let now = map();
    assert_eq!(now[format!("holder-{number}")], "c");
    assert_eq!(now[format!("horizon-{number}")], horizon, "nobody wrote over it");
    let mut two = Replica::start_as(&cluster, "two", Some("b"));
    let address = two.address();
    eventually("it issues from its new place", || svid(&cluster, address, &one)).await;
    assert_eq!(map()["holder-3"], "b");

    // An orderly end gives the place back, with what was signed there.
    douane_tests::processes::signal(two.child.id(), "TERM");
    two.child.wait().unwrap();
    let left = map();
    assert!(left["holder-3"].is_null() && left["horizon-3"].is_string(), "{left}");
}
