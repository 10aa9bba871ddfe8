//! Who is asked: an application behind its sidecar's inbound side, as a case describes it.
//!
//! What redirection does is done here: a listener on the case's port hands a TLS handshake to the sidecar, and everything
//! else to the application, as a spared socket would reach it.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use douane_ca::policy::{
    asked::{Asked, Mesh, Protocol},
    cases::Case,
};
use douane_proto::{
    id::WorkloadId,
    mesh::{self, Dialect, Port, Workload},
    mtls::{MtlsMode, MtlsModes},
    policy::{PolicySet, Trust},
    snapshot::{Found, MeshSettings, OutboundMode, Question, Snapshot},
};
use douane_proxy::{
    config::Limits,
    discovery,
    exchange::ledger::Ledger,
    inbound::{self, Inbound},
    net::{hairpin, socket::Sockets},
    outbound::{Outbound, Ways},
    shutdown::Shutdown,
    telemetry::access::Telemetry,
    tls::Mtls,
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
};

use crate::{authorizer, office::Office};

/// What the application of an opaque port says first.
pub(crate) const GREETING: &[u8] = b"hello";
/// A sidecar's handshake begins at once; who has said nothing in so many turns of the thread, each as long as that, is not
/// one. Time alone does not tell: a thread that stood still has given the sidecar no turn.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(4);
/// TLS' record type of a handshake.
const HANDSHAKE: u8 = 0x16;

/// An application behind its sidecar.
pub(crate) struct Pod {
    pub(crate) protocol: Protocol,
    office: Office,
    mesh: MeshSettings,
    workload: Arc<Workload>,
    inbound: Rc<Inbound>,
    // Where the sidecar believes that the next connection comes from.
    source: Rc<Cell<IpAddr>>,
}

impl Pod {
    /// The workload of a case, at the address that is asked.
    pub(crate) async fn open(case: &Case, asked: &Asked) -> Self {
        let Case { workload, governing, mesh, .. } = case;
        let id = WorkloadId::new(&mesh.trust_domain, &workload.namespace, &workload.service_account).unwrap();
        let office = Office::new(&mesh.trust_domain);
        let settings = settings(mesh, asked);
        let ports = vec![Port {
            number: asked.destination.port(),
            protocol: spoken(workload.protocol),
            name: String::new(),
        }];
        let described = Arc::new(Workload {
            id: id.clone(),
            name: "asked".to_owned(),
            addresses: vec![asked.destination.ip()],
            dialect: Dialect::Douane1,
            ports,
            service_name: "asked".to_owned(),
            ready: true,
            labels: workload.labels.clone(),
            mtls: governing.mtls.clone(),
            learned: BTreeMap::new(),
            preserve_case: BTreeSet::new(),
        });
        let trust = Trust { local: &mesh.trust_domain, aliases: &mesh.aliases };
        let mut policies = governing.policies.clone();
        let answers = authorizer::serve(&mut policies.providers, asked.ext_authz.as_ref(), &described).await;
        let policies = Arc::new(PolicySet::from_wire(policies, trust).unwrap());
        let snapshot = snapshot(&settings, &described, policies, answers);
        let (inbound, _) = sides(&office, &id, snapshot);
        let pod = Self {
            protocol: workload.protocol,
            office,
            mesh: settings,
            workload: described,
            inbound,
            source: Rc::new(Cell::new(asked.source)),
        };
        pod.listen(asked.destination.port()).await;
        pod
    }

    /// A connection to the pod from `source` that no sidecar of the client's took.
    pub(crate) async fn connect(&self, source: IpAddr, destination: SocketAddr) -> TcpStream {
        let (client, server) = pair().await;
        let inbound = Rc::clone(&self.inbound);
        spawn_local(
            async move { inbound.connection(server, SocketAddr::new(source, 40_000), destination).await },
        );
        client
    }

    /// A connection of an application whose sidecar has the identity `peer`.
    pub(crate) async fn connect_by_sidecar(
        &self,
        peer: &WorkloadId,
        source: IpAddr,
        destination: SocketAddr,
    ) -> TcpStream {
        self.source.set(source);
        let own = Arc::new(Workload {
            id: peer.clone(),
            name: "asking".to_owned(),
            addresses: vec![Ipv6Addr::LOCALHOST.into()],
            ports: Vec::new(),
            mtls: MtlsModes::default(),
            learned: BTreeMap::new(),
            preserve_case: BTreeSet::new(),
            labels: BTreeMap::new(),
            ..(*self.workload).clone()
        });
        let answers = HashMap::from([(
            Question::Address(destination.ip()),
            Found::Workload(Arc::clone(&self.workload)),
        )]);
        let (_, outbound) = sides(&self.office, peer, snapshot(&self.mesh, &own, Arc::default(), answers));
        let (client, server) = pair().await;
        let from = server.peer_addr().unwrap();
        spawn_local(async move { outbound.connection(server, from, destination).await });
        client
    }

    /// What a peer of this identity proves itself by.
    pub(crate) fn passport(&self, peer: &WorkloadId) -> Arc<douane_proto::svid::Identity> {
        self.office.identity(peer)
    }

    /// Is mutual TLS disabled there?
    pub(crate) fn takes_plaintext_only(&self, port: u16) -> bool {
        self.workload.mtls.of(port) == MtlsMode::Disable
    }

    /// Are peers of this trust domain of the mesh?
    pub(crate) fn trusts(&self, peer: &WorkloadId) -> bool {
        let domain = peer.trust_domain();
        *domain == self.mesh.trust_domain || self.mesh.trust_domain_aliases.contains(domain)
    }

    async fn listen(&self, port: u16) {
        // One socket for both families.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await.unwrap();
        let (inbound, source, protocol) = (Rc::clone(&self.inbound), Rc::clone(&self.source), self.protocol);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (inbound, source) = (Rc::clone(&inbound), source.get());
                spawn_local(async move {
                    let asked = stream.local_addr().unwrap();
                    let asked = SocketAddr::new(asked.ip().to_canonical(), asked.port());
                    if is_handshake(&stream).await {
                        inbound.connection(stream, SocketAddr::new(source, 40_000), asked).await;
                    } else {
                        serve(stream, protocol).await;
                    }
                });
            }
        });
    }
}

async fn is_handshake(stream: &TcpStream) -> bool {
    let mut first = [0];
    for _ in 0..TURNS {
        if let Ok(peeked) = tokio::time::timeout(TURN, stream.peek(&mut first)).await {
            return matches!(peeked, Ok(1)) && first == [HANDSHAKE];
        }
    }
    false
}

// The application: whatever reaches it is answered.
async fn serve(mut stream: TcpStream, protocol: Protocol) {
    let answer =
        service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
    match protocol {
        Protocol::Http => {
            let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        }
        Protocol::Grpc => {
            let http2 = server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = http2.serve_connection(TokioIo::new(stream), answer).await;
        }
        Protocol::Tcp => {
            let _ = stream.write_all(GREETING).await;
            // Kept open: an end of its own could be taken for a refusal.
            let _ = stream.readable().await;
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

// Both sides of a sidecar; only what is used runs.
fn sides(office: &Office, id: &WorkloadId, snapshot: Snapshot) -> (Rc<Inbound>, Rc<Outbound>) {
    let (identity, identity_seen) = watch::channel(office.identity(id));
    let (law, law_seen) = watch::channel(Arc::clone(&snapshot.policies));
    let (modes, modes_seen) = watch::channel(snapshot.own.mtls.clone());
    let aliases = snapshot.mesh.trust_domain_aliases.clone();
    let (snapshot, snapshot_seen) = watch::channel(Arc::new(snapshot));
    let mesh = discovery::Mesh::new(snapshot_seen, law_seen, modes_seen);
    let mtls = Mtls::new(identity_seen);
    mtls.trust_aliases(&aliases);
    let ledger = Ledger::new(Rc::new(Telemetry::default()));
    let (shutdown, sockets, limits) = (Shutdown::default(), Sockets::default(), Limits::default());
    let (hairpins, _own) = hairpin::channel();
    let ways = Ways { sockets, hairpins };
    let outbound = Outbound::new(mesh.clone(), mtls.clone(), ledger.clone(), ways, shutdown.clone(), limits);
    let ways = inbound::Ways { sockets, road: outbound.road() };
    let inbound = Inbound::new(mesh, mtls, ledger, ways, shutdown, limits);
    // The writers live as long as the runtime: a law whose writer is gone never changes, which is all that is needed.
    drop((identity, law, modes, snapshot));
    (Rc::new(inbound), Rc::new(outbound))
}

fn snapshot(
    mesh: &MeshSettings,
    own: &Arc<Workload>,
    policies: Arc<PolicySet>,
    answers: HashMap<Question, Found>,
) -> Snapshot {
    Snapshot {
        epoch: 1,
        sequence: 1,
        mesh: mesh.clone(),
        own: Arc::clone(own),
        policies,
        answers,
        federated: Arc::new([]),
    }
}

fn settings(mesh: &Mesh, asked: &Asked) -> MeshSettings {
    MeshSettings {
        trust_domain: mesh.trust_domain.clone(),
        root_namespace: mesh.law.root_namespace.clone(),
        outbound: OutboundMode::RegistryOnly,
        path_normalization: mesh.normalization,
        trust_domain_aliases: mesh.aliases.clone(),
        trusted_proxies: u8::from(asked.remote != asked.source),
    }
}

fn spoken(protocol: Protocol) -> mesh::Protocol {
    match protocol {
        Protocol::Http => mesh::Protocol::Http1,
        Protocol::Grpc => mesh::Protocol::Grpc,
        Protocol::Tcp => mesh::Protocol::Tcp,
    }
}
