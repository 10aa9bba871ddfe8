//! A running control plane with its state folder, its resource folder and a token issuer of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_ca::{
    app::App,
    config::{Config, Tokens},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ISSUER: &str = "https://issuer.test";

/// Folders and keys of one control plane; they outlive its restarts.
pub(crate) struct Ground {
    pub(crate) home: tempfile::TempDir,
    token_key: EncodingKey,
}

/// A control plane that runs.
pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) bundle: Option<SocketAddr>,
    pub(crate) webhook: Option<SocketAddr>,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("mesh")).unwrap();
        let token_key = EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der());
        let mut jwk = Jwk::from_encoding_key(&token_key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("one".to_owned());
        fs::write(home.path().join("jwks.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
        Self { home, token_key }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub(crate) fn mesh(&self) -> PathBuf {
        self.home.path().join("mesh")
    }

    /// Writes a resource file in one step, as careful editors do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.mesh().join(format!(".{name}.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.mesh().join(name)).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            dir: Some(self.state()),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            resources: vec![self.mesh()],
            tokens: Some(Tokens {
                jwks: self.home.path().join("jwks.json").display().to_string(),
                jwks_trust: None,
                issuer: ISSUER.to_owned(),
                audience: "douane-ca".to_owned(),
            }),
            ..Config::default()
        }
    }

    pub(crate) async fn start(&self) -> Plane {
        self.start_with(self.config()).await
    }

    pub(crate) async fn start_with(&self, config: Config) -> Plane {
        let app = App::bind(config).await.unwrap();
        let addresses = app.addresses().unwrap();
        let stop = CancellationToken::new();
        Plane {
            address: addresses.grpc[0],
            metrics: addresses.metrics.unwrap(),
            bundle: addresses.bundle,
            webhook: addresses.webhook,
            running: tokio::spawn(app.run(stop.clone())),
            stop,
        }
    }

    /// A service account token as Kubernetes projects it, changed by `change`.
    pub(crate) fn token_with(
        &self,
        namespace: &str,
        account: &str,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": ISSUER,
            "aud": ["douane-ca"],
            "exp": now + 600,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": "1"},
                "pod": {"name": format!("{account}-1"), "uid": "2"},
            },
        });
        change(&mut claims);
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &self.token_key).unwrap()
    }

    pub(crate) fn token(&self, namespace: &str, account: &str) -> String {
        self.token_with(namespace, account, |_| {})
    }
}

impl Plane {
    /// Stops it as SIGTERM does, and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), self.running).await;
        ended.expect("it stops in time").unwrap().unwrap();
    }

    /// A page of its metrics listener.
    pub(crate) async fn page(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }
}

/// A port to be chosen at an address that only the caller has: once freed it is still free when it is bound again, and until
/// then nobody answers there. On 127.0.0.1 any connection to anywhere may have taken it meanwhile for its near end, even one
/// that was meant for this very port.
pub(crate) fn own_loopback() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // 127.64.0.0 to 127.191.255.255: 512 addresses for each of the processes that run at a time.
    let number =
        (std::process::id() % (1 << 14) * (1 << 9)) + TAKEN.fetch_add(1, Ordering::Relaxed) % (1 << 9);
    SocketAddr::from((Ipv4Addr::from_bits(0x7f40_0000 + number), 0))
}

/// Waits until `found` finds something; fails aloud after a minute, which no machine needs.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut found: impl FnMut() -> F,
) -> T {
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < limit, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
