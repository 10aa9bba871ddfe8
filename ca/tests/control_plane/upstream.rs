//! An upstream signs our intermediates: here a small server that speaks what Vault's and OpenBao's API documents
//! (`sign-intermediate`, log-in by a Kubernetes service account), with rcgen behind it. It is not Vault itself.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use douane_ca::{
    admin::{Answer, Command, call},
    app::App,
    config::{Config, Upstream, Vault, VaultLogin},
    state::StateFolder,
};
use douane_proto::{svid::authority_key_id, wire::issue_request::Evidence};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    plane::Ground,
    sidecar::{issue, request},
};

const TOKEN: &str = "s.a-token-of-vault";

/// A PKI engine with its own root.
struct Engine {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    away: AtomicBool,
}

impl Engine {
    fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Example Corp Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap();
        Arc::new(Self { root, issuer: Issuer::new(params, key), away: AtomicBool::new(false) })
    }

    async fn serve(self: Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&self).answer(stream));
            }
        });
        url
    }

    async fn answer(self: Arc<Self>, mut stream: TcpStream) {
        let mut text = Vec::new();
        let (head, body) = loop {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap();
            text.extend_from_slice(&piece[..read]);
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_lowercase(), serde_json::from_str::<Value>(body).unwrap());
            }
        };
        let (status, answer) = self.reply(&head, &body);
        let answer = answer.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn reply(&self, head: &str, body: &Value) -> (u16, Value) {
        if self.away.load(Ordering::SeqCst) {
            return (503, json!({ "errors": ["Vault is sealed"] }));
        }
        if head.starts_with("post /v1/auth/kubernetes/login ") {
            let known = body["role"] == "douane" && body["jwt"] == "a.service.account";
            return if known {
                (200, json!({ "auth": { "client_token": TOKEN, "lease_duration": 3600 } }))
            } else {
                (400, json!({ "errors": ["invalid role name"] }))
            };
        }
        let is_ours =
            head.contains("x-vault-token: s.a-token-of-vault") && head.contains("x-vault-request: true");
        if !is_ours {
            return (403, json!({ "errors": ["permission denied"] }));
        }
        if !head.starts_with("post /v1/pki/root/sign-intermediate ") {
            return (404, json!({ "errors": ["no handler for route"] }));
        }
        assert_eq!((&body["use_csr_values"], &body["max_path_length"]), (&json!(true), &json!(0)));
        let csr = CertificateSigningRequestParams::from_pem(body["csr"].as_str().unwrap()).unwrap();
        let CertificateSigningRequestParams { mut params, public_key } = csr;
        let life: u64 = body["ttl"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        let start = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = start + now.checked_sub(Duration::from_secs(30)).unwrap();
        params.not_after = start + now + Duration::from_secs(life);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&public_key, &self.issuer).unwrap();
        let root = self.root.pem();
        (200, json!({ "data": { "certificate": certificate.pem(), "issuing_ca": root, "ca_chain": [root] } }))
    }
}

fn below(ground: &Ground, url: &str, login: VaultLogin) -> Config {
    let mut config = ground.config();
    config.authority.upstream = Some(Upstream::Vault(Vault {
        url: url.to_owned(),
        trust: None,
        mount: "pki".to_owned(),
        issuer: None,
        namespace: None,
        login,
    }));
    config
}

fn token(ground: &Ground, text: &str) -> VaultLogin {
    let file = ground.home.path().join("vault-token");
    fs::write(&file, text).unwrap();
    VaultLogin::Token { file }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_lead_up_to_the_upstreams_root() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let url = Arc::clone(&engine).serve().await;
    let config = below(&ground, &url, token(&ground, &format!("{TOKEN}\n")));
    let plane = ground.start_with(config).await;
    let bundle = ground.state().join("bundle.pem");

    let (request, _) = request(Evidence::ServiceAccountToken(ground.token("shop", "web")), 0);
    let response = issue(plane.address, &bundle, request.clone()).await.unwrap();
    assert_eq!(response.bundle.unwrap().roots, [engine.root.der().to_vec()]);
    assert_eq!(response.chain.len(), 2);
    assert_eq!(authority_key_id(&response.chain[1]), douane_proto::svid::subject_key_id(engine.root.der()));

    // While it is away, what it has signed goes on; an operator who asks for another is told why there is none.
    engine.away.store(true, Ordering::SeqCst);
    let folder = StateFolder::new(ground.state());
    let order = |order| {
        let folder = folder.clone();
        async move { tokio::task::spawn_blocking(move || call(&folder, &order)).await.unwrap().unwrap() }
    };
    let Answer::Refused(reason) = order(Command::RotateIntermediate).await else { panic!("it was away") };
    assert!(reason.contains("Vault is sealed"), "{reason}");
    let Answer::Refused(reason) = order(Command::RotateRoot { force: false }).await else {
        panic!("not ours")
    };
    assert!(reason.contains("upstream"), "{reason}");
    issue(plane.address, &bundle, request.clone()).await.unwrap();
    engine.away.store(false, Ordering::SeqCst);
    assert!(matches!(order(Command::RotateIntermediate).await, Answer::Done { .. }));
    issue(plane.address, &bundle, request).await.unwrap();
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_service_account_logs_in_and_a_wrong_one_is_told_why_not() {
    let (ground, engine) = (Ground::new(), Engine::new());
    let url = engine.serve().await;
    let token_file = ground.home.path().join("service-account");
    fs::write(&token_file, "a.service.account").unwrap();
    let login = |role: &str| VaultLogin::Kubernetes {
        role: role.to_owned(),
        mount: "kubernetes".to_owned(),
        token_file: token_file.clone(),
    };
    let refusal = async |config| match App::bind(config).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    };
    let stranger = refusal(below(&ground, &url, login("nobody"))).await;
    assert!(stranger.contains("invalid role name"), "{stranger}");
    let denied = refusal(below(&ground, &url, token(&ground, "s.another"))).await;
    assert!(denied.contains("permission denied"), "{denied}");
    let nowhere = refusal(below(&ground, "http://127.0.0.1:9", token(&ground, TOKEN))).await;
    assert!(nowhere.contains("127.0.0.1:9"), "{nowhere}");
    assert!(!ground.state().join("authority").exists(), "nothing was made in its place");
    ground.start_with(below(&ground, &url, login("douane"))).await.stop().await;
}
