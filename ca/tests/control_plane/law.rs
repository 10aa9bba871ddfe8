//! The law of a workload as its sidecar is told it: token rules with the keys of their issuers, modes of mutual TLS, and
//! external authorizers.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use douane_ca::config::{Config, Jwks};
use douane_proto::{
    mtls::MtlsMode,
    policy::{Provider, ProviderProtocol},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    discovery::{PODS, watch},
    plane::{Ground, eventually},
    sidecar::Watch,
};

/// An issuer that publishes keys over https; its certificate and its answer.
struct Issuer {
    address: SocketAddr,
    certificate: String,
    body: Arc<Mutex<Option<String>>>,
}

impl Issuer {
    async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let body: Arc<Mutex<Option<String>>> = Arc::default();
        let said = Arc::clone(&body);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                let body = said.lock().unwrap().clone();
                let answer = match body {
                    Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                    None => "HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                // The reader may have had enough before the end.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, certificate: certificate.pem(), body }
    }

    fn says(&self, id: &str) {
        let key = r#""kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;
        *self.body.lock().unwrap() = Some(format!(r#"{{"keys":[{{"kid":"{id}",{key}}}]}}"#));
    }
}

fn law(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

fn keys(watch: &Watch) -> Option<String> {
    Some(watch.last.policies.as_ref()?.authentications.first()?.rules.first()?.jwks.clone())
}

async fn until_keys(watch: &mut Watch, id: &str) {
    while keys(watch).is_none_or(|keys| !keys.contains(id)) {
        watch.next().await.unwrap();
    }
}

#[tokio::test]
async fn token_rules_are_sent_with_the_keys_of_their_issuer_which_stay_when_it_is_away() {
    let issuer = Issuer::start().await;
    issuer.says("first");
    let ground = Ground::new();
    let trust = ground.home.path().join("issuer.pem");
    fs::write(&trust, &issuer.certificate).unwrap();
    ground.write("pods.yaml", PODS);
    let url = format!("https://localhost:{}/keys", issuer.address.port());
    ground.write(
        "law.yaml",
        &law("RequestAuthentication", "tokens", &format!("{{jwtRules: [{{issuer: i, jwksUri: '{url}'}}]}}")),
    );
    let jwks = Jwks {
        allow_addresses: vec!["127.0.0.1/32".parse().unwrap()],
        trust: Some(trust),
        refresh_every: Duration::from_millis(200),
        ..Jwks::default()
    };
    let plane = ground.start_with(Config { jwks, ..ground.config() }).await;

    let mut orders = watch(&ground, &plane, "orders").await;
    until_keys(&mut orders, "first").await;
    issuer.says("second");
    until_keys(&mut orders, "second").await;

    *issuer.body.lock().unwrap() = None;
    eventually("the failure is counted", || async {
        plane.page("/metrics").await.contains("jwks_sets{state=\"old\"} 1").then_some(())
    })
    .await;
    let mut later = watch(&ground, &plane, "orders").await;
    until_keys(&mut later, "second").await;
    plane.stop().await;
}

#[tokio::test]
async fn an_issuer_on_loopback_is_not_asked_and_its_rule_has_no_keys() {
    let issuer = Issuer::start().await;
    issuer.says("first");
    let ground = Ground::new();
    ground.write("pods.yaml", PODS);
    let url = format!("https://127.0.0.1:{}/keys", issuer.address.port());
    ground.write(
        "law.yaml",
        &law("RequestAuthentication", "tokens", &format!("{{jwtRules: [{{issuer: i, jwksUri: '{url}'}}]}}")),
    );
    let plane = ground.start().await;
    eventually("the failure is counted", || async {
        plane.page("/metrics").await.contains("jwks_sets{state=\"missing\"} 1").then_some(())
    })
    .await;
    let orders = watch(&ground, &plane, "orders").await;
    assert_eq!(keys(&orders).as_deref(), Some(""), "the rule is there: its tokens are refused");
    plane.stop().await;
}

#[tokio::test]
async fn modes_and_authorizers_are_sent_and_their_changes_pushed() {
    let ground = Ground::new();
    ground.write("pods.yaml", PODS);
    let peer = |mode: &str| law("PeerAuthentication", "default", &format!("{{mtls: {{mode: {mode}}}}}"));
    let ask = law("AuthorizationPolicy", "ask", "{action: CUSTOM, provider: {name: ext}, rules: [{}]}");
    ground.write("law.yaml", &(peer("PERMISSIVE") + &ask));
    let provider = |name| Provider::new(name, ProviderProtocol::Grpc, "ext.shop.svc", 9000);
    let config = Config { extension_providers: vec![provider("ext"), provider("unused")], ..ground.config() };
    let plane = ground.start_with(config).await;

    let mut orders = watch(&ground, &plane, "orders").await;
    assert_eq!(orders.snapshot.as_ref().unwrap().own.mtls.of(8080), MtlsMode::Permissive);
    let providers = &orders.last.policies.as_ref().unwrap().providers;
    assert_eq!(providers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["ext"]);
    let status = plane.page("/status").await;
    assert!(status.contains("PERMISSIVE") && status.contains("law.yaml:"), "{status}");

    ground.write("law.yaml", &(peer("STRICT") + &ask));
    orders.next().await.unwrap();
    assert_eq!(orders.snapshot.as_ref().unwrap().own.mtls.of(8080), MtlsMode::Strict);
    plane.stop().await;
}
