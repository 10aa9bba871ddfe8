//! The two sidecars: `web` knows the service in front of `orders` as discovery would have told it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use douane_proto::{
    mesh::{Dialect, Endpoint, Port, Protocol, Service, Workload},
    mtls::{MtlsMode, MtlsModes},
    policy::{PolicySet, Trust},
    snapshot::{Found, MeshSettings, OutboundMode, PathNormalization, Question, Snapshot},
    wire,
};
use douane_proxy::{
    config::{
        Limits,
        tracing::{Sampler, Tracing},
    },
    discovery::Mesh,
    exchange::ledger::Ledger,
    inbound::{self, Inbound},
    net::{hairpin, socket::Sockets},
    outbound::{self, Outbound},
    shutdown::Shutdown,
    telemetry::{
        access::{Logs, Spans, Telemetry},
        metrics::Metrics,
        origin::Origin,
        writer::{LineWriter, LostLines},
    },
    tls::Mtls,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::spawn_local};

use crate::{domain, id, office::Office};

/// What no request may reach, however it is spelled.
const FORBIDDEN: &str = "/forbidden*";

/// Both of them.
pub(crate) struct Pair {
    pub(crate) outbound: Rc<Outbound>,
    pub(crate) inbound: Rc<Inbound>,
    pub(crate) web: Shutdown,
    pub(crate) orders: Shutdown,
}

/// The service in front of `orders`, as its callers address it.
pub(crate) fn service() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 96, 0, 7), 80))
}

impl Pair {
    pub(crate) fn new(office: &Office, wanted: &Value, room: &Path, pod: SocketAddr) -> Self {
        let protocol = match wanted["protocol"].as_str().unwrap() {
            "http1" => Protocol::Http1,
            "http2" => Protocol::Http2,
            "grpc" => Protocol::Grpc,
            "tcp" => Protocol::Tcp,
            _ => Protocol::Undeclared,
        };
        let mode = match wanted["mode"].as_str() {
            Some("permissive") => MtlsMode::Permissive,
            _ => MtlsMode::Strict,
        };
        let port = Port { number: pod.port(), protocol, name: String::new() };
        let orders = workload("orders", pod, vec![port.clone()], mode);
        let web = workload("web", SocketAddr::from(([127, 0, 1, 1], 0)), Vec::new(), MtlsMode::Strict);
        let service = Service {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
            hosts: vec!["orders".to_owned()],
            addresses: vec![service().ip()],
            ports: vec![Port { number: service().port(), ..port }],
            endpoints: vec![Endpoint {
                workload: Arc::clone(&orders),
                targets: BTreeMap::from([(service().port(), pod.port())]),
            }],
        };
        let answers = HashMap::from([
            (Question::Address(self::service().ip()), Found::Service(Arc::new(service))),
            (Question::Address(pod.ip()), Found::Workload(Arc::clone(&orders))),
        ]);
        let law = if protocol == Protocol::Tcp { Vec::new() } else { vec![forbids()] };
        let limits = limits(wanted);
        let (_, outbound, web) =
            sides(office, &room.join("web.log"), snapshot(&web, Vec::new(), answers), limits);
        let (inbound, _, orders) =
            sides(office, &room.join("orders.log"), snapshot(&orders, law, HashMap::new()), limits);
        Self { outbound, inbound, web, orders }
    }
}

fn limits(wanted: &Value) -> Limits {
    let usual = Limits::default();
    let time = |name: &str, usual| wanted[name].as_u64().map_or(usual, Duration::from_millis);
    Limits {
        head: time("head", usual.head),
        idle: time("idle", usual.idle),
        handshake: time("handshake", usual.handshake),
        ..usual
    }
}

fn workload(name: &str, at: SocketAddr, ports: Vec<Port>, mode: MtlsMode) -> Arc<Workload> {
    Arc::new(Workload {
        id: id(name),
        name: name.to_owned(),
        addresses: vec![at.ip()],
        dialect: Dialect::Douane1,
        ports,
        service_name: name.to_owned(),
        ready: true,
        labels: BTreeMap::new(),
        mtls: MtlsModes { otherwise: mode, ports: BTreeMap::new() },
        learned: BTreeMap::new(),
        preserve_case: BTreeSet::new(),
    })
}

fn forbids() -> wire::Policy {
    let operation = wire::Operation { paths: vec![FORBIDDEN.to_owned()], ..wire::Operation::default() };
    wire::Policy {
        namespace: "shop".to_owned(),
        name: "forbids".to_owned(),
        action: wire::Action::Deny.into(),
        rules: vec![wire::Rule { to: vec![operation], ..wire::Rule::default() }],
        ..wire::Policy::default()
    }
}

fn snapshot(own: &Arc<Workload>, policies: Vec<wire::Policy>, answers: HashMap<Question, Found>) -> Snapshot {
    let policies = wire::PolicySet { policies, ..wire::PolicySet::default() };
    Snapshot {
        epoch: 1,
        sequence: 1,
        mesh: MeshSettings {
            trust_domain: domain(),
            root_namespace: "istio-system".to_owned(),
            outbound: OutboundMode::RegistryOnly,
            // Some servers merge slashes (Waitress): what is decided on must be what they see.
            path_normalization: PathNormalization::MergeSlashes,
            trust_domain_aliases: Vec::new(),
            trusted_proxies: 0,
        },
        own: Arc::clone(own),
        policies: Arc::new(PolicySet::from_wire(policies, Trust { local: &domain(), aliases: &[] }).unwrap()),
        federated: Arc::new([]),
        answers,
    }
}

// A sidecar, whose access log is a file.
fn sides(
    office: &Office,
    log: &Path,
    snapshot: Snapshot,
    limits: Limits,
) -> (Rc<Inbound>, Rc<Outbound>, Shutdown) {
    let (identity, identity_seen) = watch::channel(office.identity(&snapshot.own.id));
    let (law, law_seen) = watch::channel(Arc::clone(&snapshot.policies));
    let (modes, modes_seen) = watch::channel(snapshot.own.mtls.clone());
    let (snapshot, snapshot_seen) = watch::channel(Arc::new(snapshot));
    let mesh = Mesh::new(snapshot_seen, law_seen, modes_seen);
    let mtls = Mtls::new(identity_seen);
    let lost = LostLines::default();
    let access = LineWriter::new(File::create(log).unwrap(), lost.clone()).unwrap();
    let logs = Logs { access: Some(access), ..Logs::default() };
    let telemetry = Telemetry::new(
        Origin::default(),
        logs,
        Metrics::new(&lost, &lost),
        Spans::Discard,
        Tracing::of(Sampler::Ratio(1.0)),
    );
    let ledger = Ledger::new(telemetry);
    let (shutdown, sockets) = (Shutdown::default(), Sockets::default());
    let (hairpins, own) = hairpin::channel();
    let ways = outbound::Ways { sockets, hairpins };
    let outbound = Outbound::new(mesh.clone(), mtls.clone(), ledger.clone(), ways, shutdown.clone(), limits);
    let ways = inbound::Ways { sockets, road: outbound.road() };
    let inbound = Rc::new(Inbound::new(mesh, mtls, ledger, ways, shutdown.clone(), limits));
    let outbound = Rc::new(outbound);
    let (running, calling) = (Rc::clone(&inbound), Rc::clone(&outbound));
    spawn_local(async move {
        // Nobody is redirected to these: they keep the rooms' own tasks (pools, time limits) running.
        let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (first, second) = (listener().await, listener().await);
        tokio::join!(running.run(first, own), calling.run(vec![second]));
        // Their writers live as long as the sidecar.
        drop((identity, law, modes, snapshot));
    });
    (inbound, outbound, shutdown)
}
