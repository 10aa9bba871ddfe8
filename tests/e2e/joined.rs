//! A sidecar's issuer against the real control plane, having come by a join token: it renews by its certificate, and says
//! clearly when it cannot.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use douane_ca::{attest, config::Config as CaConfig, state::StateFolder};
use douane_proto::id::WorkloadId;
use douane_proxy::{
    identity::issuer::{IssueError, Issuer},
    tls::channel::{ControlPlane, Dialer},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;

struct Plane {
    folder: PathBuf,
    port: u16,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Plane {
    async fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("douane-joined-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let config = CaConfig {
            dir: Some(folder.join("state")),
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            ..CaConfig::default()
        };
        let app = douane_ca::app::App::bind(config).await.unwrap();
        let port = app.addresses().unwrap().grpc[0].port();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move { app.run(stopped).await.unwrap() });
        Self { folder, port, stop, running }
    }

    fn state(&self) -> StateFolder {
        StateFolder::new(self.folder.join("state"))
    }

    // A new token in the file that the sidecar reads.
    fn hand_token(&self) {
        let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/till".parse().unwrap();
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let token = attest::create_join_token(&self.state(), &id, Duration::from_secs(60), now).unwrap();
        fs::write(self.folder.join("token"), token.as_bytes()).unwrap();
    }

    fn issuer(&self, lifetime: Duration) -> Issuer {
        let control_plane = ControlPlane {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            id: "spiffe://cluster.local/ns/douane-system/sa/douane-ca".parse().unwrap(),
            bundle_file: self.state().bundle(),
            dialer: Dialer::new(TcpStream::connect),
        };
        Issuer::new(control_plane, "vm".to_owned(), self.folder.join("token"), Some(lifetime))
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        fs::remove_dir_all(self.folder).unwrap();
    }
}

#[tokio::test]
async fn a_sidecar_that_came_by_a_join_token_renews_by_its_certificate_until_it_is_revoked() {
    let plane = Plane::start().await;
    plane.hand_token();
    let mut issuer = plane.issuer(Duration::from_secs(600));
    let mut held = issuer.issue(None).await.unwrap();
    for generation in 2..5 {
        held = issuer.issue(Some(&held)).await.unwrap();
        assert_eq!(held.generation, generation);
    }
    // The application's certificate is asked for with the sidecar's, and takes nobody's place.
    let application = issuer.twin().issue(Some(&held)).await.unwrap();
    assert_eq!(application.svid.leaf.id, held.svid.leaf.id);
    held = issuer.issue(Some(&held)).await.unwrap();

    let all = attest::list(&plane.state(), 0);
    attest::revoke(&plane.state(), &all[0]).unwrap();
    let refused = issuer.issue(Some(&held)).await.unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");

    // A new token in the file is taken by itself.
    plane.hand_token();
    held = issuer.issue(Some(&held)).await.unwrap();
    issuer.issue(Some(&held)).await.unwrap();
    plane.end().await;
}

#[tokio::test]
async fn a_sidecar_that_was_away_for_too_long_says_that_it_needs_a_new_token() {
    let plane = Plane::start().await;
    plane.hand_token();
    let mut issuer = plane.issuer(Duration::from_secs(600));
    let mut held = issuer.issue(None).await.unwrap();
    // As after a night with the lid closed.
    held.svid.leaf.not_after = 0;
    let ended = issuer.issue(Some(&held)).await.unwrap_err();
    assert!(matches!(ended, IssueError::Ended(_)), "{ended}");
    assert!(ended.to_string().contains("token create"), "{ended}");
    plane.hand_token();
    issuer.issue(Some(&held)).await.unwrap();
    plane.end().await;
}
