//! The bundle endpoint as other trust domains and their programs see it (SPIFFE Federation 5).

use std::{
    fs, io,
    net::SocketAddr,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use douane_ca::{
    admin::{Command as Order, call},
    config::{BundleEndpoint, Config, WebCertificate},
    state::StateFolder,
};
use douane_proto::{bundle::BundleDocument, svid::Leaf};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::plane::{Ground, Plane, eventually};

const OWN_NAME: &str = "douane-ca.douane-system.svc";

fn serving(ground: &Ground, web: Option<WebCertificate>) -> Config {
    let listen = "127.0.0.1:0".parse().unwrap();
    Config { bundle_endpoint: Some(BundleEndpoint { listen, web }), ..ground.config() }
}

// A client that trusts these roots, and shows nothing of its own.
fn trusting(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> TlsConnector {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn own_roots(ground: &Ground) -> Vec<CertificateDer<'static>> {
    let file = ground.state().join("bundle.pem");
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

async fn connect(
    address: SocketAddr,
    tls: &TlsConnector,
    name: &'static str,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    tls.connect(ServerName::try_from(name).unwrap(), stream).await
}

async fn say(stream: &mut TlsStream<TcpStream>, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Servers that close without a farewell of TLS are known.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

async fn ask(plane: &Plane, ground: &Ground, line: &str) -> (String, String) {
    let tls = trusting(own_roots(ground));
    let mut stream = connect(plane.bundle.unwrap(), &tls, OWN_NAME).await.unwrap();
    say(&mut stream, &format!("{line} HTTP/1.1\r\nhost: bundle\r\n\r\n")).await
}

async fn bundle(plane: &Plane, ground: &Ground) -> BundleDocument {
    let (head, body) = ask(plane, ground, "GET /bundle").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    BundleDocument::parse(body.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_the_endpoint_gives_the_newest_bundle_to_anybody_and_nothing_else() {
    let ground = Ground::new();
    let plane = ground.start_with(serving(&ground, None)).await;
    let (head, body) = ask(&plane, &ground, "GET /bundle").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    let first = BundleDocument::parse(body.as_bytes()).unwrap();
    assert_eq!(first.roots, own_roots(&ground).iter().map(|root| root.to_vec()).collect::<Vec<_>>());
    assert_eq!(first.jwt_keys.len(), 1);
    assert_eq!(first.refresh_hint, Some(60), "a fifth of the lead of new roots");

    for (line, code) in [
        ("POST /bundle", "405"),
        ("HEAD /bundle", "405"),
        ("GET /", "404"),
        ("GET /bundle/", "404"),
        ("GET /bundle/../authority", "404"),
        ("GET /metrics", "404"),
        ("nonsense", "400"),
    ] {
        let (head, _) = ask(&plane, &ground, line).await;
        assert!(head.starts_with(&format!("http/1.1 {code}")), "{line}: {head}");
    }

    // A root that is published and does not sign yet is in it.
    let folder = StateFolder::new(ground.state());
    let order = move || call(&folder, &Order::RotateRoot { force: false });
    tokio::task::spawn_blocking(order).await.unwrap().unwrap();
    let second = eventually("the new root", async || {
        Some(bundle(&plane, &ground).await).filter(|next| next.roots.len() == 2)
    })
    .await;
    assert!(second.sequence > first.sequence);
    assert_eq!(second.jwt_keys.len(), 2);
    let page = plane.page("/metrics").await;
    assert!(page.contains("bundle_endpoint_requests_total{code=\"405\"} 2"), "{page}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_https_spiffe_shows_the_authoritys_own_svid() {
    let ground = Ground::new();
    let plane = ground.start_with(serving(&ground, None)).await;
    let stream = connect(plane.bundle.unwrap(), &trusting(own_roots(&ground)), OWN_NAME).await.unwrap();
    let leaf = Leaf::parse(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(leaf.id.to_string(), "spiffe://cluster.local/ns/douane-system/sa/douane-ca");
    plane.stop().await;
}

/// An authority as browsers trust them.
struct Public {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Public {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `localhost` with its key, PEM.
    fn certify(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_https_web_shows_the_certificate_of_the_files_and_takes_over_the_next() {
    let (ground, public) = (Ground::new(), Public::new());
    let web = WebCertificate {
        certificate: ground.home.path().join("web.pem"),
        key: ground.home.path().join("web.key"),
    };
    let (certificate, key) = public.certify();
    fs::write(&web.certificate, &certificate).unwrap();
    fs::write(&web.key, &key).unwrap();
    let plane = ground.start_with(serving(&ground, Some(web.clone()))).await;
    let address = plane.bundle.unwrap();
    let tls = trusting([public.root.clone()]);
    let shown = async || {
        let stream = connect(address, &tls, "localhost").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    assert_eq!(shown().await, first.to_vec());
    assert!(connect(address, &trusting(own_roots(&ground)), "localhost").await.is_err(), "not our root's");

    // Half of the next one changes nothing; the whole of it does.
    let (certificate, key) = public.certify();
    fs::write(&web.certificate, &certificate).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(shown().await, first.to_vec());
    fs::write(&web.key, &key).unwrap();
    let second = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec();
    eventually("the next certificate", async || (shown().await == second).then_some(())).await;
    let mut stream = connect(address, &tls, "localhost").await.unwrap();
    let (_, body) = say(&mut stream, "GET /bundle HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(BundleDocument::parse(body.as_bytes()).unwrap().roots.len(), 1);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_endpoint_that_cannot_be_used_stops_the_start_with_its_file() {
    let (ground, public) = (Ground::new(), Public::new());
    let web = WebCertificate {
        certificate: ground.home.path().join("web.pem"),
        key: ground.home.path().join("web.key"),
    };
    let refusal = async || match douane_ca::app::App::bind(serving(&ground, Some(web.clone()))).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    };
    assert!(refusal().await.contains("web.pem"));
    fs::write(&web.certificate, public.certify().0).unwrap();
    assert!(refusal().await.contains("web.key"));
    fs::write(&web.key, public.certify().1).unwrap();
    assert!(refusal().await.contains("web.pem"), "a key of another certificate");
}

// What openssl agrees on with a listener in this version, if it does.
fn openssl(address: SocketAddr, version: &str) -> Option<String> {
    let arguments = ["s_client", version, "-connect", &address.to_string()];
    let talked = Command::new("openssl").args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&talked.stdout).into_owned();
    text.contains("BEGIN CERTIFICATE").then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_5_openssl_is_served_in_tls_1_2_and_1_3_here_and_in_1_2_nowhere_else() {
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("DOUANE_NO_SKIP").is_none(), "openssl is missing");
        eprintln!("SKIPPED: there is no openssl here");
        return;
    }
    let (ground, public) = (Ground::new(), Public::new());
    let (certificate, key) = public.certify();
    let web = WebCertificate {
        certificate: ground.home.path().join("web.pem"),
        key: ground.home.path().join("web.key"),
    };
    fs::write(&web.certificate, certificate).unwrap();
    fs::write(&web.key, key).unwrap();
    for web in [None, Some(web)] {
        let plane = ground.start_with(serving(&ground, web)).await;
        let (grpc, endpoint) = (plane.address, plane.bundle.unwrap());
        let looked = move || {
            let in_1_2 = openssl(endpoint, "-tls1_2").expect("the endpoint speaks TLS 1.2");
            assert!(in_1_2.contains("Cipher is ECDHE-"), "forward secrecy: {in_1_2}");
            assert!(!in_1_2.contains("Acceptable client certificate CA names"), "{in_1_2}");
            openssl(endpoint, "-tls1_3").expect("and TLS 1.3");
            assert!(openssl(endpoint, "-tls1_1").is_none());
            assert!(openssl(grpc, "-tls1_2").is_none(), "the mesh does not");
            openssl(grpc, "-tls1_3").expect("but it is there");
        };
        tokio::task::spawn_blocking(looked).await.unwrap();
        plane.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_a_visitor_who_says_nothing_or_too_much_is_cut_off() {
    let ground = Ground::new();
    let plane = ground.start_with(serving(&ground, None)).await;
    let tls = trusting(own_roots(&ground));
    let address = plane.bundle.unwrap();
    let began = Instant::now();
    let mut silent = connect(address, &tls, OWN_NAME).await.unwrap();
    let mut answer = Vec::new();
    let limit = Duration::from_secs(60);
    let _ = tokio::time::timeout(limit, silent.read_to_end(&mut answer)).await.expect("it is cut off");
    assert!(began.elapsed() >= Duration::from_secs(4), "but not at once");

    let mut wordy = connect(address, &tls, OWN_NAME).await.unwrap();
    let long = format!("GET /bundle HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let _ = wordy.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(limit, wordy.read_to_end(&mut answer)).await.expect("it is cut off");
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    plane.stop().await;
}
