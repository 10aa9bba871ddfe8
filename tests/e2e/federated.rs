//! Two meshes of two trust domains, each with its own control plane and a sidecar's parts as the sidecar joins them
//! (certificate, discovery, handshake, decision), over loopback: who calls whom across, while roots are replaced, and when it
//! ends. Redirection has no part in it and is tested elsewhere.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, UNIX_EPOCH},
};

use douane_ca::{
    admin::{Answer, Command as Order, call},
    attest,
    authority::Status,
    config::{BundleEndpoint, BundleSource, Config as CaConfig, EndpointSvid, Profile, Relation},
    state::StateFolder,
};
use douane_proto::{
    bundle::BundleDocument,
    facts::Facts,
    id::{TrustDomain, WorkloadId},
    policy::{Answers, Decision, decide},
    snapshot::{Found, Question},
    svid::TrustBundle,
};
use douane_proxy::{
    discovery::{Mesh, follow::Follower},
    identity::{issuer::Issuer, renew},
    tls::{
        Mtls,
        channel::{ControlPlane, Dialer, bundle_from_pem},
    },
};
use douane_tests::loopback;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::alone::{Folder, eventually, on_the_sidecars_runtime};

const PATIENCE: Duration = Duration::from_secs(120);

/// One mesh: a folder, one pod, one law.
struct Domain {
    name: &'static str,
    account: &'static str,
    home: Folder,
}

/// Its control plane, on a thread of its own.
struct Plane {
    grpc: SocketAddr,
    bundle: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

/// A sidecar's parts.
struct Sidecar {
    mtls: Mtls,
    mesh: Mesh,
}

impl Domain {
    /// `account` may be called by `admitted`; whoever is at `partner` is `other`.
    fn new(
        name: &'static str,
        account: &'static str,
        admitted: &str,
        (partner, other): (&str, &str),
    ) -> Self {
        let home = Folder::new();
        let mesh = format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {account}-0, namespace: shop, labels: {{douane.io/inject: enabled}}}}
spec: {{serviceAccountName: {account}, containers: [{{name: app, image: app}}]}}
status: {{podIP: 10.77.9.9, phase: Running}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: callers, namespace: shop}}
spec:
  action: ALLOW
  rules: [{{from: [{{source: {{principals: ['{admitted}']}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: partner, namespace: shop, annotations: {{douane.io/identity: '{other}'}}}}
spec: {{address: {partner}, labels: {{douane.io/inject: enabled}}}}
"
        );
        fs::write(home.path("resources/pod.yaml"), mesh).unwrap();
        Self { name, account, home }
    }

    fn state(&self) -> StateFolder {
        StateFolder::new(self.home.path("state"))
    }

    fn domain(&self) -> TrustDomain {
        TrustDomain::parse(self.name).unwrap()
    }

    fn authority(&self) -> WorkloadId {
        WorkloadId::new(&self.domain(), "douane-system", "douane-ca").unwrap()
    }

    /// What its operator hands to `to`'s: where its bundle is, and the first one.
    fn introduced_to(&self, to: &Self, endpoint: SocketAddr) -> Relation {
        let pem = fs::read(self.state().bundle()).unwrap();
        let TrustBundle { roots, .. } = bundle_from_pem(&self.domain(), &pem).unwrap();
        let bundle = to.home.path(&format!("{}.json", self.name));
        fs::write(&bundle, BundleDocument { roots, ..BundleDocument::default() }.write()).unwrap();
        let profile = Profile::Spiffe(EndpointSvid { id: self.authority().to_string(), bundle });
        let bundle_endpoint =
            BundleSource { url: format!("https://{endpoint}/bundle"), profile, trust: None };
        Relation { trust_domain: self.domain(), bundle_endpoint, line: 1 }
    }

    fn start(&self, (grpc, bundle): (SocketAddr, SocketAddr), federation: Vec<Relation>) -> Plane {
        let mut config = CaConfig {
            dir: Some(self.state().path().to_owned()),
            listen: vec![grpc],
            resources: vec![self.home.path("resources")],
            trust_domain: self.domain(),
            leaf_ttl: Duration::from_secs(10),
            bundle_endpoint: Some(BundleEndpoint { listen: bundle, web: None }),
            federation,
            ..CaConfig::default()
        };
        // Others look once a second.
        config.authority.root_lead = Duration::from_secs(5);
        let stop = CancellationToken::new();
        let (told, heard) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let app = douane_ca::app::App::bind(config).await.unwrap();
                told.send(app.addresses().unwrap()).unwrap();
                app.run(stopped).await.unwrap();
            });
        });
        let addresses = heard.recv().unwrap();
        Plane { grpc: addresses.grpc[0], bundle: addresses.bundle.unwrap(), stop, thread }
    }

    async fn order(&self, order: Order) -> Answer {
        let state = self.state();
        tokio::task::spawn_blocking(move || call(&state, &order)).await.unwrap().unwrap()
    }

    async fn status(&self) -> Status {
        match self.order(Order::Status).await {
            Answer::Done { status, .. } => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The parts of its pod's sidecar, joined as the sidecar joins them.
    async fn sidecar(&self, plane: &Plane) -> Sidecar {
        let id = WorkloadId::new(&self.domain(), "shop", self.account).unwrap();
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let token = attest::create_join_token(&self.state(), &id, Duration::from_secs(60), now).unwrap();
        let token_file: PathBuf = self.home.path("token");
        fs::write(&token_file, token.as_bytes()).unwrap();
        let control_plane = ControlPlane {
            host: plane.grpc.ip().to_string(),
            port: plane.grpc.port(),
            id: self.authority(),
            bundle_file: self.state().bundle(),
            dialer: Dialer::new(TcpStream::connect),
        };
        let life = Some(Duration::from_secs(10));
        let mut issuer = Issuer::new(control_plane.clone(), "shop".to_owned(), token_file, life);
        let first = renew::first(&mut issuer, &|_| ()).await;
        let (identity, seen) = watch::channel(Arc::new(first));
        let (bundles, bundles_seen) = watch::channel(None);
        tokio::task::spawn_local(renew::run(issuer, identity, bundles_seen, |_| ()));
        let workload = format!("shop/{}-0", self.account);
        let (follower, mesh) = Follower::new(control_plane, workload, seen.clone(), bundles, Rc::new(()));
        tokio::task::spawn_local(async { match follower.run().await {} });
        let (mtls, mesh) = (Mtls::new(seen), mesh.await.unwrap());
        let (believing, mut snapshot) = (mtls.clone(), mesh.watch());
        tokio::task::spawn_local(async move {
            loop {
                believing.trust_federated(&snapshot.borrow_and_update().federated);
                if snapshot.changed().await.is_err() {
                    return;
                }
            }
        });
        Sidecar { mtls, mesh }
    }
}

impl Plane {
    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.grpc, self.bundle)
    }

    async fn end(self) -> (SocketAddr, SocketAddr) {
        let addresses = self.addresses();
        self.stop.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
        addresses
    }
}

impl Sidecar {
    /// How many roots of `domain` it knows.
    fn roots_of(&self, domain: &Domain) -> Vec<Vec<u8>> {
        let snapshot = self.mesh.snapshot();
        let known = snapshot.federated.iter().find(|bundle| bundle.trust_domain == domain.domain());
        known.map(|bundle| bundle.roots.clone()).unwrap_or_default()
    }

    /// Calls whoever is at `address` by its own knowledge of the mesh: handshake, and the receiver's decision.
    async fn call(&self, address: &str, to: &Self) -> Result<(), String> {
        let destination: IpAddr = address.parse().unwrap();
        let found = self.mesh.find(Question::Address(destination)).await;
        let Some(Found::Workload(partner)) = found else { return Err(format!("{found:?}")) };
        let listener = TcpListener::bind(loopback::own()).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (accepted, connected) = tokio::join!(to.mtls.accept(far), self.mtls.connect(near, &partner.id));
        let (_, session) = accepted.map_err(|error| error.to_string())?;
        connected.map_err(|error| error.to_string())?;
        let facts = Facts {
            peer: Some(session.peer),
            source: Ipv4Addr::LOCALHOST.into(),
            remote: Ipv4Addr::LOCALHOST.into(),
            destination: (destination, 8080).into(),
            sni: None,
            request: None,
        };
        match decide(&to.mesh.policies().borrow(), &facts, &Answers::default()) {
            Decision::Allow(_) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

const WEB: &str = "spiffe://a.example/ns/shop/sa/web";
const ORDERS: &str = "spiffe://b.example/ns/shop/sa/orders";
const PARTNER: &str = "10.77.9.10";

async fn stop_and_start(plane: Plane, domain: &Domain, federation: Vec<Relation>) -> Plane {
    let addresses = plane.end().await;
    domain.start(addresses, federation)
}

#[test]
fn row_1_5_two_meshes_call_across_under_a_law_that_names_the_other_through_a_rotation_and_until_it_ends() {
    on_the_sidecars_runtime(async {
        // web of a may call orders of b; orders of b may not call web of a.
        let a = Domain::new("a.example", "web", "b.example/ns/shop/sa/nobody", (PARTNER, ORDERS));
        let b = Domain::new("b.example", "orders", "a.example/ns/shop/sa/web", (PARTNER, WEB));
        let anywhere = || (loopback::own(), loopback::own());
        let (first_a, plane_b) = (a.start(anywhere(), Vec::new()), b.start(anywhere(), Vec::new()));
        let of_b = b.introduced_to(&a, plane_b.bundle);
        let of_a = a.introduced_to(&b, first_a.bundle);
        let plane_a = stop_and_start(first_a, &a, vec![of_b]).await;
        let plane_b = stop_and_start(plane_b, &b, vec![of_a]).await;
        let (web, orders) = (a.sidecar(&plane_a).await, b.sidecar(&plane_b).await);

        let mut last = Ok(());
        eventually("web is let in", async || {
            last = web.call(PARTNER, &orders).await;
            last.is_ok()
        })
        .await;
        let refused = orders.call(PARTNER, &web).await.unwrap_err();
        assert!(refused.contains("b.example/ns/shop/sa/orders"), "by the law: {refused}");

        // The root of b is replaced, and leaves, while web goes on calling. In order it would stay for as long as anything
        // that it signed may be valid; to be tainted hurries it out once nobody lives by it.
        let before = web.roots_of(&b);
        let old = b.status().await.active().unwrap().id.clone();
        b.order(Order::RotateRoot { force: false }).await;
        let (began, mut calls, mut failed, mut is_tainted) = (Instant::now(), 0_u32, Vec::new(), false);
        loop {
            calls += 1;
            failed.extend(web.call(PARTNER, &orders).await.err());
            let now = web.roots_of(&b);
            if now.len() == 1 && now != before {
                break;
            }
            if now.len() == 2 && !is_tainted && b.status().await.active().unwrap().id != old {
                b.order(Order::Taint { authority: old.clone() }).await;
                is_tainted = true;
            }
            assert!(began.elapsed() < PATIENCE, "{} roots after {calls} calls", now.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        failed.extend(web.call(PARTNER, &orders).await.err());
        assert!(failed.is_empty() && calls > 100, "{} of {calls} failed: {failed:?}", failed.len());

        // b ends the relationship: what runs is cut off, and nobody of a is let in any more.
        let listener = TcpListener::bind(loopback::own()).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let expected: WorkloadId = ORDERS.parse().unwrap();
        let (accepted, connected) = tokio::join!(orders.mtls.accept(far), web.mtls.connect(near, &expected));
        let (_stream, session) = accepted.unwrap();
        let _connected = connected.unwrap();
        let plane_b = stop_and_start(plane_b, &b, Vec::new()).await;
        tokio::time::timeout(PATIENCE, orders.mtls.distrusted(&session)).await.expect("it ends");
        let refused = web.call(PARTNER, &orders).await.unwrap_err();
        assert!(refused.contains("another trust domain"), "{refused}");
        plane_a.end().await;
        plane_b.end().await;
    });
}
