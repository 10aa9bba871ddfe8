//! Any bytes as an HTTP/2 peer of the inbound side, behind the handshake: nothing panics, and every connection is answered
//! or ended.
#![no_main]

#[path = "../../policy_on_the_wire/office.rs"]
mod office;

use std::{collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    mesh::{Dialect, Port, Protocol, Workload},
    mtls::MtlsModes,
    policy::{PolicySet, Trust},
    snapshot::{MeshSettings, OutboundMode, PathNormalization, Snapshot},
    wire,
};
use douane_proxy::{
    config::Limits,
    discovery::Mesh,
    exchange::ledger::Ledger,
    inbound::{self, Inbound},
    net::{
        hairpin::{self, Load},
        socket::Sockets,
    },
    outbound::{self, Outbound},
    shutdown::Shutdown,
    telemetry::access::Telemetry,
    tls::Mtls,
};
use libfuzzer_sys::fuzz_target;
use office::Office;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::watch,
    task::spawn_local,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Whoever has not ended by then hangs.
const LONG: Duration = Duration::from_secs(4);

struct House {
    runtime: LocalRuntime,
    hairpins: hairpin::Hairpins,
    pod: SocketAddr,
}

thread_local! {
    static HOUSE: House = House::open();
}

fuzz_target!(|bytes: &[u8]| {
    HOUSE.with(|house| {
        house.runtime.block_on(async {
            let mut io = house.hairpins.open(house.pod, Load::Streams).await.expect("the inbound side runs");
            let asked = async {
                let _ = io.write_all(PREFACE).await;
                let _ = io.write_all(bytes).await;
                let _ = io.shutdown().await;
                let mut told = Vec::new();
                let _ = io.read_to_end(&mut told).await;
            };
            tokio::time::timeout(LONG, asked).await.expect("the connection ends with its peer");
        });
    });
});

impl House {
    fn open() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime");
        let (hairpins, pod) = runtime.block_on(async {
            // Nobody listens there, nor may: what is forwarded is refused at once.
            let pod = SocketAddr::from(([127, 0, 0, 1], 1));
            (inbound(pod).await, pod)
        });
        Self { runtime, hairpins, pod }
    }
}

async fn inbound(pod: SocketAddr) -> hairpin::Hairpins {
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let id = WorkloadId::new(&domain, "shop", "orders").expect("an identity");
    let office = Office::new(&domain);
    let (identity, identity_seen) = watch::channel(office.identity(&id));
    let snapshot = snapshot(id, pod, &domain);
    let (law, law_seen) = watch::channel(Arc::clone(&snapshot.policies));
    let (modes, modes_seen) = watch::channel(snapshot.own.mtls.clone());
    let (snapshot, snapshot_seen) = watch::channel(Arc::new(snapshot));
    let mesh = Mesh::new(snapshot_seen, law_seen, modes_seen);
    let mtls = Mtls::new(identity_seen);
    let ledger = Ledger::new(Rc::new(Telemetry::default()));
    let (shutdown, sockets) = (Shutdown::default(), Sockets::default());
    let limits = Limits { head: Duration::from_millis(100), idle: Duration::from_millis(200), ..Limits::default() };
    let (hairpins, own) = hairpin::channel();
    let ways = outbound::Ways { sockets, hairpins: hairpins.clone() };
    let outbound = Outbound::new(mesh.clone(), mtls.clone(), ledger.clone(), ways, shutdown.clone(), limits);
    let ways = inbound::Ways { sockets, road: outbound.road() };
    let inbound = Rc::new(Inbound::new(mesh, mtls, ledger, ways, shutdown, limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    spawn_local(async move {
        inbound.run(listener, own).await;
        // Their writers live as long as the sidecar.
        drop((identity, law, modes, snapshot, outbound));
    });
    hairpins
}

fn snapshot(id: WorkloadId, pod: SocketAddr, domain: &TrustDomain) -> Snapshot {
    let port = Port { number: pod.port(), protocol: Protocol::Undeclared, name: String::new() };
    let own = Arc::new(Workload {
        id,
        name: "orders".to_owned(),
        addresses: vec![pod.ip()],
        dialect: Dialect::Douane1,
        ports: vec![port],
        service_name: "orders".to_owned(),
        ready: true,
        labels: Default::default(),
        mtls: MtlsModes::default(),
        learned: Default::default(),
        preserve_case: Default::default(),
    });
    let trust = Trust { local: domain, aliases: &[] };
    Snapshot {
        epoch: 1,
        sequence: 1,
        mesh: MeshSettings {
            trust_domain: domain.clone(),
            root_namespace: "istio-system".to_owned(),
            outbound: OutboundMode::RegistryOnly,
            path_normalization: PathNormalization::Base,
            trust_domain_aliases: Vec::new(),
            trusted_proxies: 0,
        },
        own,
        policies: Arc::new(PolicySet::from_wire(wire::PolicySet::default(), trust).expect("no law")),
        federated: Arc::new([]),
        answers: HashMap::new(),
    }
}
