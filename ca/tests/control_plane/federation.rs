//! Two control planes of two trust domains, and endpoints that misbehave: what each believes of the other, and what its
//! sidecars are told.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use douane_ca::{
    admin::{Answer, Command as Order, call},
    config::{BundleEndpoint, BundleSource, Config, EndpointSvid, Profile, Relation},
    federation::DomainStatus,
    state::StateFolder,
};
use douane_proto::{
    bundle::{BundleDocument, ForeignBundle},
    id::TrustDomain,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    plane::{Ground, Plane, eventually, own_loopback},
    sidecar::{Watch, svid},
};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop}
spec: {serviceAccountName: web, containers: [{name: web}]}
status: {podIP: 10.1.0.1, phase: Running}
";

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

// One that serves its bundle, and whose new roots are hurried: others look once a second, also while it is away.
fn serving(ground: &Ground, name: &str) -> Config {
    let listen = own_loopback();
    let mut config = Config {
        trust_domain: domain(name),
        bundle_endpoint: Some(BundleEndpoint { listen, web: None }),
        ..ground.config()
    };
    config.authority.root_lead = Duration::from_secs(5);
    config
}

fn spiffe_id(name: &str) -> String {
    format!("spiffe://{name}/ns/douane-system/sa/douane-ca")
}

// What an operator carries from one mesh to the other: here the roots that lie in its state folder.
fn carried(from: &Ground, to: &Ground, name: &str) -> PathBuf {
    let text = fs::read_to_string(from.state().join("bundle.pem")).unwrap();
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let base64 = |block: &str| block.split("-----END").next().unwrap().replace(['\n', '\r'], "");
    use base64::Engine as _;
    let roots = blocks.map(|block| base64::engine::general_purpose::STANDARD.decode(base64(block)).unwrap());
    let document = BundleDocument { roots: roots.collect(), ..BundleDocument::default() };
    let path = to.home.path().join(format!("{name}.json"));
    fs::write(&path, document.write()).unwrap();
    path
}

fn by_spiffe(name: &str, address: SocketAddr, bundle: PathBuf) -> Relation {
    let profile = Profile::Spiffe(EndpointSvid { id: spiffe_id(name), bundle });
    relation(name, &format!("https://{address}/bundle"), profile, None)
}

fn relation(name: &str, url: &str, profile: Profile, trust: Option<PathBuf>) -> Relation {
    let bundle_endpoint = BundleSource { url: url.to_owned(), profile, trust };
    Relation { trust_domain: domain(name), bundle_endpoint, line: 1 }
}

async fn statuses(ground: &Ground) -> Vec<DomainStatus> {
    let folder = StateFolder::new(ground.state());
    let asked = tokio::task::spawn_blocking(move || call(&folder, &Order::Status)).await.unwrap();
    match asked.unwrap() {
        Answer::Done { status, .. } => status.federated,
        other => panic!("{other:?}"),
    }
}

async fn watching(ground: &Ground, plane: &Plane) -> Watch {
    let bundle = ground.state().join("bundle.pem");
    let svid = svid(plane.address, &bundle, ground.token("shop", "web")).await;
    Watch::open(plane.address, &bundle, Some(&svid), "shop/web-1").await.unwrap()
}

fn told(watch: &Watch) -> Option<Vec<ForeignBundle>> {
    watch.last.federated.clone().map(|message| ForeignBundle::all(message).unwrap().to_vec())
}

// The next that is told of other domains.
async fn next_told(watch: &mut Watch) -> Vec<ForeignBundle> {
    loop {
        watch.next().await.unwrap();
        if let Some(told) = told(watch) {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_a_bundle_is_fetched_by_the_svid_of_its_endpoint_told_to_sidecars_and_followed_through_a_rotation()
 {
    let (here, there) = (Ground::new(), Ground::new());
    here.write("pod.yaml", POD);
    let foreign = there.start_with(serving(&there, "b.example")).await;
    let first = carried(&there, &here, "b.example");
    let relation = by_spiffe("b.example", foreign.bundle.unwrap(), first);
    let config = Config { federation: vec![relation], ..serving(&here, "a.example") };
    let plane = here.start_with(config.clone()).await;
    // The helpers dial `cluster.local` names, which are ours in any trust domain.
    let mut watch = watching(&here, &plane).await;
    let before = told(&watch).unwrap();
    assert_eq!((before.len(), before[0].trust_domain.as_str()), (1, "b.example"));
    assert_eq!(before[0].roots.len(), 1);
    let status = eventually("a fetch", async || {
        statuses(&here).await.into_iter().find(|status| status.fetched.is_some())
    })
    .await;
    assert!(status.failing.is_none() && status.sequence.is_some() && status.expires.is_some(), "{status:?}");

    // A new root over there is known here before it signs anything, and the endpoint is known by it in its turn.
    let folder = StateFolder::new(there.state());
    let rotate = move || call(&folder, &Order::RotateRoot { force: false });
    tokio::task::spawn_blocking(rotate).await.unwrap().unwrap();
    let both = loop {
        let told = next_told(&mut watch).await;
        if told[0].roots.len() == 2 {
            break told;
        }
    };
    assert_eq!(both[0].roots[0], before[0].roots[0]);
    assert!(both[0].keys().is_some(), "the keys of its tokens as well");
    let page = plane.page("/metrics").await;
    assert!(
        page.contains("federation_fetches_total{trust_domain=\"b.example\",outcome=\"fetched\"}"),
        "{page}"
    );
    assert!(
        page.contains("federation_bundle_expires_timestamp_seconds{trust_domain=\"b.example\"}"),
        "{page}"
    );
    assert!(
        page.contains("federation_bundle_fetched_timestamp_seconds{trust_domain=\"b.example\"}"),
        "{page}"
    );

    // While the other is away, and we start anew, what was known last counts: not what the operator carried.
    foreign.stop().await;
    plane.stop().await;
    let plane = here.start_with(config.clone()).await;
    let mut watch = watching(&here, &plane).await;
    assert_eq!(told(&watch).unwrap()[0].roots, both[0].roots);
    eventually("the fetch fails", async || statuses(&here).await[0].failing.clone()).await;
    let here_state = here.state();
    let printed = tokio::task::spawn_blocking(move || {
        let douane = Command::new(env!("CARGO_BIN_EXE_douane"))
            .args(["ca", "status", "--dir"])
            .arg(here_state)
            .output();
        String::from_utf8(douane.unwrap().stdout).unwrap()
    });
    let printed = printed.await.unwrap();
    assert!(printed.contains("Federated with b.example: 2 roots, the last ends"), "{printed}");
    assert!(printed.contains("the last fetch failed"), "{printed}");
    assert!(watch.is_silent(Duration::from_millis(300)).await, "a failure changes nothing");
    plane.stop().await;

    // Without the relationship nothing of it is left.
    let plane = here.start_with(Config { federation: Vec::new(), ..config }).await;
    assert_eq!(told(&watching(&here, &plane).await), Some(Vec::new()));
    assert_eq!(fs::read_dir(here.state().join("federation")).unwrap().count(), 0);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_two_domains_that_federate_with_each_other_start_in_any_order() {
    // Each needs the other's address: the first is federated with on its next start.
    let (one, other) = (Ground::new(), Ground::new());
    let first = one.start_with(serving(&one, "a.example")).await;
    let listen = first.bundle.unwrap();
    let carried_first = carried(&one, &other, "a.example");
    first.stop().await;
    let second_config = Config {
        federation: vec![by_spiffe("a.example", listen, carried_first)],
        ..serving(&other, "b.example")
    };
    let second = other.start_with(second_config).await;
    let failing = eventually("it is away", async || statuses(&other).await[0].failing.clone()).await;
    assert!(failing.contains(&listen.port().to_string()), "{failing}");
    let mut config = Config {
        federation: vec![by_spiffe("b.example", second.bundle.unwrap(), carried(&other, &one, "b.example"))],
        ..serving(&one, "a.example")
    };
    config.bundle_endpoint = Some(BundleEndpoint { listen, web: None });
    let first = one.start_with(config).await;
    eventually("a knows b", async || statuses(&one).await[0].fetched).await;
    first.stop().await;
    second.stop().await;
}

/// An endpoint that says what it is told to say.
struct Hostile {
    address: SocketAddr,
    trust: PathBuf,
    says: Arc<Mutex<Vec<u8>>>,
}

impl Hostile {
    /// As the web knows it, for `localhost`.
    async fn start(ground: &Ground) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap();
        let trust = ground.home.path().join("web-root.pem");
        fs::write(&trust, root.pem()).unwrap();
        let own = KeyPair::generate().unwrap();
        let issuer = Issuer::new(params, key);
        let certificate =
            CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(own.serialize_der().into()),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says: Arc<Mutex<Vec<u8>>> = Arc::default();
        let said = Arc::clone(&says);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, said) = (acceptor.clone(), Arc::clone(&said));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0; 2048];
                    let _ = stream.read(&mut request).await;
                    let answer = said.lock().unwrap().clone();
                    // The reader may have had enough before the end.
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, trust, says }
    }

    fn says(&self, answer: &[u8]) {
        *self.says.lock().unwrap() = answer.to_vec();
    }

    fn publishes(&self, document: &BundleDocument) {
        let body = document.write();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        self.says(format!("{head}{body}").as_bytes());
    }

    fn relation(&self, name: &str) -> Relation {
        let url = format!("https://localhost:{}/bundle.json", self.address.port());
        relation(name, &url, Profile::Web, Some(self.trust.clone()))
    }
}

fn root() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn document(sequence: u64, roots: Vec<Vec<u8>>) -> BundleDocument {
    BundleDocument { roots, sequence: Some(sequence), refresh_hint: Some(1), ..BundleDocument::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_whatever_a_federated_endpoint_does_what_was_good_last_stays_and_only_for_its_domain() {
    let ground = Ground::new();
    ground.write("pod.yaml", POD);
    let (hostile, honest) = (Hostile::start(&ground).await, root());
    hostile.publishes(&document(7, vec![honest.clone()]));
    let federation = vec![hostile.relation("b.example")];
    let plane = ground.start_with(Config { federation, ..ground.config() }).await;
    let status = async || statuses(&ground).await.remove(0);
    eventually("the honest bundle", async || status().await.fetched).await;
    let mut watch = watching(&ground, &plane).await;
    assert_eq!(told(&watch).unwrap()[0].roots, std::slice::from_ref(&honest));

    let huge = [b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[]".to_vec(), vec![b' '; 400 * 1024]].concat();
    let broken = document(9, vec![honest.clone()]).write().replace("MII", "MIJ");
    let broken = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{broken}", broken.len());
    let answers: [(&[u8], &str); 7] = [
        (&huge, "length limit"),
        (b"HTTP/1.1 302 Found\r\nlocation: https://localhost/x\r\ncontent-length: 0\r\n\r\n", "not followed"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "500"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope", "not a SPIFFE bundle"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{\"keys\":[]}", "bundle"),
        (broken.as_bytes(), "key 1 of it"),
        (b"", "bundle"),
    ];
    for (answer, reason) in answers {
        hostile.says(answer);
        eventually(reason, async || status().await.failing.filter(|failing| failing.contains(reason))).await;
        assert_eq!(status().await.roots, Some(1), "{reason}");
    }
    hostile.publishes(&document(6, vec![root()]));
    eventually("an older one", async || status().await.failing.filter(|why| why.contains("older"))).await;
    assert!(watch.is_silent(Duration::from_millis(300)).await, "nobody was told of any of it");

    // An empty one is no failure: it takes back all of the domain's identities, and nothing else.
    let mut watch = watching(&ground, &plane).await;
    hostile.publishes(&document(8, Vec::new()));
    let told = next_told(&mut watch).await;
    assert_eq!((told.len(), told[0].roots.len()), (1, 0));
    eventually("it is said", async || (status().await.roots == Some(0)).then_some(())).await;
    assert!(watch.snapshot.is_some(), "and the mesh goes on");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_an_endpoint_that_is_not_who_it_should_be_tells_us_nothing() {
    let (here, there) = (Ground::new(), Ground::new());
    let foreign = there.start_with(serving(&there, "b.example")).await;
    let address = foreign.bundle.unwrap();
    let right = carried(&there, &here, "b.example");
    let other = here.home.path().join("other.json");
    fs::write(&other, document(1, vec![root()]).write()).unwrap();
    let somebody = EndpointSvid { id: "spiffe://b.example/somebody".to_owned(), bundle: right.clone() };
    let url = format!("https://{address}/bundle");
    for (relation, reason) in [
        // Its root is not that of the first bundle.
        (by_spiffe("b.example", address, other), "UnknownIssuer"),
        // It has another SPIFFE ID than it should.
        (relation("b.example", &url, Profile::Spiffe(somebody), None), "somebody was expected"),
        // On the web its name would have to be vouched for.
        (relation("b.example", &url, Profile::Web, None), "certificate"),
    ] {
        let config = Config { federation: vec![relation], ..here.config() };
        let plane = here.start_with(config).await;
        let failing = eventually(reason, async || statuses(&here).await.remove(0).failing).await;
        assert!(failing.contains(reason), "{failing}");
        assert!(statuses(&here).await[0].fetched.is_none());
        plane.stop().await;
    }
    foreign.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_first_bundle_takes_the_place_of_what_was_fetched_and_a_broken_one_stops_the_start() {
    let (here, there) = (Ground::new(), Ground::new());
    let foreign = there.start_with(serving(&there, "b.example")).await;
    let first = carried(&there, &here, "b.example");
    let relation = by_spiffe("b.example", foreign.bundle.unwrap(), first.clone());
    let config = Config { federation: vec![relation], ..here.config() };
    let plane = here.start_with(config.clone()).await;
    eventually("a fetch", async || statuses(&here).await[0].fetched).await;
    plane.stop().await;
    foreign.stop().await;

    fs::write(&first, document(1, vec![root(), root()]).write()).unwrap();
    let plane = here.start_with(config.clone()).await;
    assert_eq!(statuses(&here).await[0].roots, Some(2));
    plane.stop().await;
    fs::write(&first, "nonsense").unwrap();
    let Err(refused) = douane_ca::app::App::bind(config).await else { panic!("it started") };
    assert!(format!("{refused:#}").contains("the first bundle of b.example"), "{refused:#}");
}
