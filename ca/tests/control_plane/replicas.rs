//! Several replicas over one folder sign at the same time: any of them is killed, the root is replaced under load, and what
//! they signed is one authority's.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use douane_ca::{
    admin::{Answer, Command as Order, call},
    attest,
    authority::Status,
    state::StateFolder,
};
use douane_proto::{
    id::WorkloadId,
    svid::{Leaf, authority_key_id, subject_key_id},
    wire::{IssueResponse, identity_client::IdentityClient, issue_request::Evidence},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Code;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    plane::{Ground, ISSUER},
    sidecar::{channel, issue, request, tls},
    standby::Process,
};

/// Sidecars of each replica that ask without pause.
const LANES: usize = 3;

fn start(ground: &Ground) -> Process {
    let keys = ground.home.path().join("jwks.json");
    let keys = keys.to_str().unwrap();
    let flags = ["--replica", "--jwks", keys, "--token-issuer", ISSUER, "--leaf-ttl", "60s"];
    Process::start_with(ground, &[&flags[..], &["--metrics", "127.0.0.1:0"]].concat())
}

async fn readiness(metrics: SocketAddr) -> String {
    let mut stream = TcpStream::connect(metrics).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

/// What was signed, and by whom.
#[derive(Default)]
struct Signed {
    serials: HashSet<String>,
    twice: Vec<String>,
    by_replica: Vec<usize>,
}

// Asks until it is told to stop, as a sidecar does: who finds nobody tries again.
async fn load(ground: Arc<Ground>, (replica, address): (usize, SocketAddr), signed: Arc<Mutex<Signed>>) {
    loop {
        let bundle = ground.state().join("bundle.pem");
        if let Ok(channel) = channel(address, tls(&bundle, None)).await {
            let token = ground.token("shop", "web");
            let (wanted, _) = request(Evidence::ServiceAccountToken(token), 0);
            if let Ok(answer) = IdentityClient::new(channel).issue(wanted).await {
                let answer = answer.into_inner();
                assert!(verifies(&answer), "a certificate that its own bundle does not vouch for");
                let serial = Leaf::parse(&answer.chain[0]).unwrap().serial;
                let mut signed = signed.lock().unwrap();
                signed.by_replica[replica] += 1;
                if !signed.serials.insert(serial.clone()) {
                    signed.twice.push(serial);
                }
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn verifies(answer: &IssueResponse) -> bool {
    let follows = |below: &[u8], above: &[u8]| {
        let (_, below) = X509Certificate::from_der(below).unwrap();
        let (_, above) = X509Certificate::from_der(above).unwrap();
        below.verify_signature(Some(above.public_key())).is_ok()
    };
    let roots = &answer.bundle.as_ref().unwrap().roots;
    follows(&answer.chain[0], &answer.chain[1]) && roots.iter().any(|root| follows(&answer.chain[1], root))
}

async fn order(ground: &Ground, order: Order) -> Option<Answer> {
    let folder = StateFolder::new(ground.state());
    tokio::task::spawn_blocking(move || call(&folder, &order)).await.unwrap().ok()
}

async fn status(ground: &Ground) -> Option<Status> {
    match order(ground, Order::Status).await? {
        Answer::Done { status, .. } => Some(*status),
        _ => None,
    }
}

fn join_token(ground: &Ground) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/till".parse().unwrap();
    let state = StateFolder::new(ground.state());
    attest::create_join_token(&state, &id, Duration::from_secs(600), now).unwrap().to_string()
}

// Under which root a replica signs now.
async fn root_of(ground: &Ground, address: SocketAddr) -> Option<Vec<u8>> {
    let channel = channel(address, tls(&ground.state().join("bundle.pem"), None)).await.ok()?;
    let (wanted, _) = request(Evidence::ServiceAccountToken(ground.token("shop", "orders")), 0);
    let answer = IdentityClient::new(channel).issue(wanted).await.ok()?.into_inner();
    authority_key_id(&answer.chain[1])
}

// Longer than others wait: here are three processes and nine that ask them, on whatever machine this is.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut found: impl FnMut() -> F) -> T {
    let limit = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < limit, "it never came: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_replicas_sign_at_the_same_time_and_the_root_is_replaced_while_the_leader_is_killed() {
    let ground = Arc::new(Ground::new());
    let mut replicas = vec![start(&ground)];
    let mut addresses = vec![replicas[0].address()];
    for _ in 0..2 {
        let next = start(&ground);
        addresses.push(next.address());
        replicas.push(next);
    }
    let signed = Arc::new(Mutex::new(Signed { by_replica: vec![0; 3], ..Signed::default() }));
    let mut lanes = JoinSet::new();
    for (number, address) in addresses.iter().enumerate() {
        for _ in 0..LANES {
            lanes.spawn(load(Arc::clone(&ground), (number, *address), Arc::clone(&signed)));
        }
    }
    let counts = || signed.lock().unwrap().by_replica.clone();
    let more_than = async |before: &[usize], of: &[usize]| {
        let all = of.iter().all(|replica| counts()[*replica] >= before[*replica] + 10);
        all.then_some(())
    };
    eventually("all three sign", async || more_than(&[0; 3], &[0, 1, 2]).await).await;

    let first = root_of(&ground, addresses[0]).await.unwrap();
    let forced = order(&ground, Order::RotateRoot { force: true }).await.unwrap();
    replicas[0].kill();
    let Answer::Done { authority: Some(coming), .. } = forced else { panic!("{forced:?}") };
    let active =
        eventually("another leads", async || status(&ground).await?.active().map(|root| root.id.clone()))
            .await;
    assert_eq!(active, coming, "what was durable is in effect");
    for address in &addresses[1..] {
        let now = eventually("it signs below the new root", async || {
            root_of(&ground, *address).await.filter(|root| *root != first)
        })
        .await;
        let bundle = std::fs::read(ground.state().join("bundle.pem")).unwrap();
        let roots = x509_parser::pem::Pem::iter_from_buffer(&bundle).map(|pem| pem.unwrap().contents);
        assert!(roots.filter_map(|root| subject_key_id(&root)).any(|id| id == now));
    }
    let before = counts();
    eventually("both go on", async || more_than(&before, &[1, 2]).await).await;

    replicas[1].kill();
    let before = counts();
    eventually("the last one goes on", async || more_than(&before, &[2]).await).await;
    eventually("and leads", async || status(&ground).await).await;

    // Who comes back signs again.
    replicas[1] = start(&ground);
    let back = replicas[1].address();
    eventually("it is back", async || root_of(&ground, back).await).await;
    if let Some(panicked) = lanes.try_join_next() {
        panicked.unwrap();
    }
    lanes.shutdown().await;
    for replica in &mut replicas {
        replica.kill();
    }
    let signed = signed.lock().unwrap();
    assert!(signed.twice.is_empty(), "serials twice: {:?}", signed.twice);

    let logs = StateFolder::new(ground.state()).audits();
    assert_eq!(logs.len(), 3, "a log for each place, taken up by who comes back");
    let mut recorded = Vec::new();
    for log in &logs {
        let report = douane_ca::audit::verify(log, None).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        for file in std::fs::read_dir(log).unwrap() {
            recorded.push(std::fs::read_to_string(file.unwrap().path()).unwrap());
        }
    }
    let recorded = recorded.concat();
    // Leaves' serial numbers are compared as numbers: a record has its leading zeros.
    assert!(signed.serials.iter().all(|serial| recorded.contains(&format!("{serial}\""))));
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_join_token_is_spent_once_among_all_replicas() {
    let ground = Ground::new();
    let one = start(&ground);
    let first = one.address();
    let two = start(&ground);
    let second = two.address();
    let bundle = ground.state().join("bundle.pem");
    let ask = async |address, token: &str| {
        issue(address, &bundle, request(Evidence::JoinToken(token.to_owned()), 0).0).await
    };
    let token = join_token(&ground);
    ask(first, &token).await.unwrap();
    assert_eq!(ask(second, &token).await.unwrap_err().code(), Code::Unauthenticated);
    for _ in 0..10 {
        let token = join_token(&ground);
        let (here, there) = tokio::join!(ask(first, &token), ask(second, &token));
        assert!(here.is_ok() != there.is_ok(), "{here:?} {there:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_replica_that_may_sign_nothing_says_that_it_is_not_ready_until_it_may() {
    let ground = Ground::new();
    let leader = start(&ground);
    leader.address();
    let follower = start(&ground);
    let metrics = follower.address_of("metrics");
    let ready = async || readiness(metrics).await.starts_with("HTTP/1.1 200").then_some(());
    eventually("it is ready", ready).await;
    let (state, away) = (ground.state().join("authority"), ground.state().join("away"));
    std::fs::rename(&state, &away).unwrap();
    eventually("it says why it is not", async || {
        let page = readiness(metrics).await;
        (page.starts_with("HTTP/1.1 503") && page.contains("nothing is signed")).then_some(())
    })
    .await;
    std::fs::rename(&away, &state).unwrap();
    eventually("it is ready again", ready).await;
}
