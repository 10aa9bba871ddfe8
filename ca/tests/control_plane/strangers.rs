//! Who proves no identity gets little: few connections, for a short time, and never a sidecar's place.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use douane_ca::{
    authority::Authority,
    budget::{Allowance, Budgets},
    metrics::Metrics,
    state::StateFolder,
    tls::{Bounds, Connection, Gate, Strangers, Tls, listen},
};
use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::Svid,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{plane::eventually, sidecar::tls};

const PLENTY: Allowance = Allowance { burst: 1000.0, rate: 1000.0 };

struct Door {
    home: tempfile::TempDir,
    address: SocketAddr,
    incoming: mpsc::Receiver<Connection>,
    web: Svid,
}

impl Door {
    async fn open(bounds: Bounds) -> Self {
        let home = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let authority = Authority::open(&StateFolder::new(home.path()), &domain, hour, now).unwrap();
        let id = |name| WorkloadId::new(&domain, "shop", name).unwrap();
        let web = authority.own_svid(&id("web"), &[], now).unwrap();
        let names = vec!["douane-ca.douane-system.svc".to_owned()];
        let gate = Gate {
            tls: Arc::new(Tls::new(Arc::new(authority), id("ca"), names, now).unwrap()),
            places: Arc::new(Semaphore::new(100)),
            strangers: Strangers::new(bounds),
            rates: Arc::new(Budgets::new(PLENTY, Instant::now())),
            metrics: Arc::new(Metrics::new()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (secured, incoming) = mpsc::channel(100);
        tokio::spawn(listen(listener, gate, secured, CancellationToken::new()));
        Self { home, address, incoming, web }
    }

    fn bundle(&self) -> PathBuf {
        self.home.path().join("bundle.pem")
    }

    async fn enter(&self, svid: Option<&Svid>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = "douane-ca.douane-system.svc".try_into().unwrap();
        tls(&self.bundle(), svid).connect(name, stream).await
    }
}

#[tokio::test]
async fn a_stranger_who_stays_is_sent_away_and_a_sidecar_is_not() {
    let visit = Duration::from_millis(200);
    let mut door = Door::open(Bounds { in_all: 10, of_one_address: 10, visit }).await;

    let _stranger = door.enter(None).await.unwrap();
    let mut connection = door.incoming.recv().await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), connection.read_u8()).await;
    assert_eq!(read.expect("it ends").unwrap_err().kind(), std::io::ErrorKind::TimedOut);

    let _sidecar = door.enter(Some(&door.web)).await.unwrap();
    let mut connection = door.incoming.recv().await.unwrap();
    assert!(tokio::time::timeout(visit * 3, connection.read_u8()).await.is_err(), "it stays open");
}

#[tokio::test]
async fn strangers_fill_their_own_places_only() {
    let visit = Duration::from_secs(60);
    let mut door = Door::open(Bounds { in_all: 3, of_one_address: 3, visit }).await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push((door.enter(None).await.unwrap(), door.incoming.recv().await.unwrap()));
    }
    assert!(door.enter(None).await.is_err(), "one too many");
    strangers.clear();
    // Sidecars are strangers until the end of the handshake, and not a moment longer.
    let mut sidecars = Vec::new();
    for _ in 0..10 {
        let sidecar = eventually("a sidecar comes in", async || door.enter(Some(&door.web)).await.ok()).await;
        sidecars.push((sidecar, door.incoming.recv().await.unwrap()));
    }
}
