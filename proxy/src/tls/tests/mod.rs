//! Handshakes and streams over loopback, with chains made here: who passes, who is refused and with which words.

mod alpn;
mod federated;
mod names;
mod streams;

use std::{
    future::Future,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::{Identity, Svid, TrustBundle},
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::watch,
};
use zeroize::Zeroizing;

use super::{Mtls, Session, TlsError, TlsStream, fault::PeerFault, park_flush};

const HOUR: i64 = 3600;

/// A root with an intermediate under it, as the control plane has them.
struct Ca {
    domain: TrustDomain,
    root: Vec<u8>,
    intermediate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf should look like; the default is a good one.
struct LeafSpec {
    id: &'static str,
    more_names: Vec<&'static str>,
    from: i64,
    until: i64,
    is_ca: IsCa,
}

impl Default for LeafSpec {
    fn default() -> Self {
        Self { id: WEB, more_names: Vec::new(), from: -60, until: HOUR, is_ca: IsCa::ExplicitNoCa }
    }
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";

impl Ca {
    fn new(domain: &str) -> Self {
        Self::with_root(domain, ca_params(BasicConstraints::Unconstrained))
    }

    fn with_root(domain: &str, root_params: CertificateParams) -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let key = KeyPair::generate().unwrap();
        let params = ca_params(BasicConstraints::Constrained(0));
        let intermediate = params.signed_by(&key, &root_issuer).unwrap();
        Self {
            domain: TrustDomain::parse(domain).unwrap(),
            root: root.der().to_vec(),
            intermediate: intermediate.der().to_vec(),
            issuer: Issuer::new(params, key),
        }
    }

    fn bundle(&self) -> Arc<TrustBundle> {
        let roots = vec![self.root.clone()];
        Arc::new(TrustBundle::of_roots(self.domain.clone(), roots))
    }

    fn sign(&self, spec: &LeafSpec) -> (Vec<Vec<u8>>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let leaf = leaf_params(spec).signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().to_vec(), self.intermediate.clone()], key)
    }

    fn identity(&self, id: &'static str) -> Identity {
        let (chain, key) = self.sign(&LeafSpec { id, ..LeafSpec::default() });
        let svid = Svid::parse(chain, Zeroizing::new(key.serialize_der())).unwrap();
        Identity { svid, bundle: self.bundle(), generation: 1 }
    }

    /// An identity whose certificate its own sidecar would refuse to load.
    fn bad_identity(&self, spec: &LeafSpec) -> Identity {
        let (chain, key) = self.sign(spec);
        with_chain(self.identity(WEB), chain, &key)
    }
}

fn with_chain(mut identity: Identity, chain: Vec<Vec<u8>>, key: &KeyPair) -> Identity {
    identity.svid.chain = chain;
    identity.svid.key = Arc::new(Zeroizing::new(key.serialize_der()));
    identity
}

fn ca_params(constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params(spec: &LeafSpec) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let names = std::iter::once(&spec.id).chain(&spec.more_names);
    params.subject_alt_names = names.map(|name| SanType::URI((*name).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = spec.is_ca;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let at = |seconds| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs().strict_add_signed(seconds))
    };
    params.not_before = at(spec.from);
    params.not_after = at(spec.until);
    params
}

fn mtls(identity: Identity) -> Mtls {
    Mtls::new(watch::channel(Arc::new(identity)).1)
}

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

fn corked(test: impl Future<Output = ()>) {
    runtime(Builder::new_current_thread().on_thread_park(park_flush)).block_on(test);
}

fn uncorked(test: impl Future<Output = ()>) {
    runtime(&mut Builder::new_current_thread()).block_on(test);
}

fn runtime(builder: &mut Builder) -> LocalRuntime {
    builder.enable_all().build_local(LocalOptions::default()).unwrap()
}

type Outcome = Result<(TlsStream, Session), TlsError>;

/// Both ends of a handshake: the server's outcome, then the client's.
async fn shake(server: Identity, client: Identity, expected: &str) -> (Outcome, Outcome) {
    let (server_io, client_io) = sockets().await;
    let (server, client) = (mtls(server), mtls(client));
    let expected = id(expected);
    tokio::join!(server.accept(server_io), client.connect(client_io, &expected))
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (accepted, connected) =
        tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    (accepted.unwrap().0, connected.unwrap())
}

async fn pair() -> (TlsStream, TlsStream) {
    let ca = Ca::new("cluster.local");
    let (server, client) = shake(ca.identity(ORDERS), ca.identity(WEB), ORDERS).await;
    (server.unwrap().0, client.unwrap().0)
}

fn refusal(outcome: Outcome) -> String {
    outcome.map(|(_, session)| session).unwrap_err().to_string()
}

/// How a server refuses a client that shows `chain`.
async fn refused_client(ca: &Ca, mut client: Identity) -> String {
    client.bundle = ca.bundle();
    refusal(shake(ca.identity(ORDERS), client, ORDERS).await.0)
}

#[test]
fn the_right_peer_passes_and_both_know_each_other() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let (server, client) = shake(ca.identity(ORDERS), ca.identity(WEB), ORDERS).await;
        let (server, client) = (server.unwrap().1, client.unwrap().1);
        assert_eq!((server.peer, server.local), (id(WEB), id(ORDERS)));
        assert_eq!((client.peer, client.local), (id(ORDERS), id(WEB)));
        assert_eq!((client.version, &*client.group), ("TLSv1.3", "X25519MLKEM768"));
        assert_eq!((client.alpn, server.sni), (super::Alpn::Douane1, None));
    });
}

#[test]
fn a_server_that_is_another_workload_is_refused() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let (server, client) = shake(ca.identity(WEB), ca.identity(WEB), ORDERS).await;
        let fault = PeerFault::Unexpected { expected: id(ORDERS), actual: id(WEB) };
        assert!(matches!(client, Err(TlsError::Peer(found)) if found == fault));
        assert!(matches!(server, Err(TlsError::RefusedByPeer(_))), "{server:?}");
    });
}

#[test]
fn a_peer_of_another_trust_domain_is_refused() {
    corked(async {
        let (ca, other) = (Ca::new("cluster.local"), Ca::new("evil.example"));
        let spec = LeafSpec { id: "spiffe://evil.example/ns/shop/sa/web", ..LeafSpec::default() };
        let why = refused_client(&ca, other.bad_identity(&spec)).await;
        assert!(why.contains("another trust domain"), "{why}");
        // The name alone does not help: the root is not in the bundle.
        let why = refused_client(&ca, other.bad_identity(&LeafSpec::default())).await;
        assert!(why.contains("no root of the trust bundle signed it"), "{why}");
    });
}

#[test]
fn an_expired_peer_and_one_of_the_future_are_refused() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let spec = LeafSpec { from: -2 * HOUR, until: -HOUR, ..LeafSpec::default() };
        let why = refused_client(&ca, ca.bad_identity(&spec)).await;
        assert!(why.contains("certificate expired"), "{why}");
        let spec = LeafSpec { from: HOUR, until: 2 * HOUR, ..LeafSpec::default() };
        let why = refused_client(&ca, ca.bad_identity(&spec)).await;
        assert!(why.contains("not valid yet"), "{why}");
    });
}

#[test]
fn a_self_signed_peer_is_refused() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let key = KeyPair::generate().unwrap();
        let leaf = leaf_params(&LeafSpec::default()).self_signed(&key).unwrap();
        let why = refused_client(&ca, with_chain(ca.identity(WEB), vec![leaf.der().to_vec()], &key)).await;
        assert!(why.contains("no root of the trust bundle signed it"), "{why}");
    });
}

#[test]
fn a_ca_certificate_and_two_uri_names_are_no_leaf() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let spec = LeafSpec { is_ca: IsCa::Ca(BasicConstraints::Constrained(0)), ..LeafSpec::default() };
        let why = refused_client(&ca, ca.bad_identity(&spec)).await;
        assert!(why.contains("CA certificate"), "{why}");
        let spec = LeafSpec { more_names: vec![ORDERS], ..LeafSpec::default() };
        let why = refused_client(&ca, ca.bad_identity(&spec)).await;
        assert!(why.contains("2 URI names"), "{why}");
    });
}

#[test]
fn an_intermediate_that_may_not_sign_certificates_signs_nothing() {
    corked(async {
        let ca = Ca::new("cluster.local");
        // A CA certificate by its basic constraints, but its key usage is a leaf's.
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let root_key = KeyPair::generate().unwrap();
        let root_params = ca_params(BasicConstraints::Unconstrained);
        let root = root_params.self_signed(&root_key).unwrap();
        let weak = params.signed_by(&key, &Issuer::new(root_params, root_key)).unwrap();
        let weak_issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = leaf_params(&LeafSpec::default()).signed_by(&leaf_key, &weak_issuer).unwrap();
        let chain = vec![leaf.der().to_vec(), weak.der().to_vec()];
        let mut server = ca.identity(ORDERS);
        let mut bundle = (*server.bundle).clone();
        bundle.roots.push(root.der().to_vec());
        server.bundle = Arc::new(bundle);
        let why = refusal(shake(server, with_chain(ca.identity(WEB), chain, &leaf_key), ORDERS).await.0);
        assert!(why.contains("no root of the trust bundle signed it"), "{why}");
    });
}

#[test]
fn a_leaf_with_an_extension_twice_is_refused() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(&LeafSpec::default());
        let twice = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        params.custom_extensions = vec![twice.clone(), twice];
        let leaf = params.signed_by(&key, &ca.issuer).unwrap();
        let chain = vec![leaf.der().to_vec(), ca.intermediate.clone()];
        let why = refused_client(&ca, with_chain(ca.identity(WEB), chain, &key)).await;
        assert!(why.contains("certificate is refused"), "{why}");
    });
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let (server_io, client_io) = sockets().await;
        let server = mtls(ca.identity(ORDERS));
        let config = super::settings::control_plane(ca.bundle(), None, &id(ORDERS)).unwrap();
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"douane/1".to_vec()];
        let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let connect = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, client_io);
        let (server, _) = tokio::join!(server.accept(server_io), connect);
        assert!(matches!(server, Err(TlsError::Peer(PeerFault::Missing))), "{server:?}");
    });
}

#[test]
fn plaintext_is_told_from_a_failed_handshake() {
    corked(async {
        let ca = Ca::new("cluster.local");
        for (bytes, plaintext) in
            [(&b"GET / HTTP/1.1\r\n\r\n"[..], true), (b"\x16\x03\x01\x00\x05hello", false)]
        {
            let (server_io, mut client_io) = sockets().await;
            client_io.write_all(bytes).await.unwrap();
            let outcome = mtls(ca.identity(ORDERS)).accept(server_io).await;
            assert_eq!(matches!(outcome, Err(TlsError::Plaintext)), plaintext, "{outcome:?}");
        }
    });
}

#[test]
fn an_empty_bundle_trusts_nobody() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let mut server = ca.identity(ORDERS);
        server.bundle = Arc::new(TrustBundle { roots: Vec::new(), ..(*ca.bundle()).clone() });
        let why = refusal(shake(server, ca.identity(WEB), ORDERS).await.0);
        assert!(why.contains("nobody is trusted"), "{why}");
    });
}

#[test]
fn a_new_root_set_counts_for_the_next_handshake_and_ends_what_the_old_root_vouched_for() {
    corked(async {
        let (old, new) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
        let (writer, reader) = watch::channel(Arc::new(old.identity(ORDERS)));
        let server = Mtls::new(reader);
        let orders = id(ORDERS);
        let connect = |client: Mtls, io| async move { client.connect(io, &id(ORDERS)).await };
        let (server_io, client_io) = sockets().await;
        let (accepted, _) =
            tokio::join!(server.accept(server_io), connect(mtls(old.identity(WEB)), client_io));
        let session = accepted.unwrap().1;
        let mut both = (*old.bundle()).clone();
        both.roots.extend(new.bundle().roots.clone());
        let mut next = (*server.identity()).clone();
        next.bundle = Arc::new(both);
        writer.send_replace(Arc::new(next.clone()));
        let mut client = new.identity(WEB);
        client.bundle = Arc::clone(&next.bundle);
        let (server_io, client_io) = sockets().await;
        let (accepted, _) = tokio::join!(server.accept(server_io), connect(mtls(client), client_io));
        assert_eq!(accepted.unwrap().1.local, orders);
        assert!(futures_util::poll!(Box::pin(server.distrusted(&session))).is_pending());
        next.bundle = new.bundle();
        writer.send_replace(Arc::new(next));
        server.distrusted(&session).await;
    });
}

#[test]
fn what_runs_under_a_root_that_left_in_order_runs_on_and_ends_when_that_is_taken_back() {
    corked(async {
        let (old, new) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
        let (writer, reader) = watch::channel(Arc::new(old.identity(ORDERS)));
        let (server, web) = (Mtls::new(reader), old.identity(WEB));
        let connect = |client: Mtls, io| async move { client.connect(io, &id(ORDERS)).await };
        let (server_io, client_io) = sockets().await;
        let (accepted, _) = tokio::join!(server.accept(server_io), connect(mtls(web.clone()), client_io));
        let session = accepted.unwrap().1;
        let retired_keys = vec![douane_proto::svid::subject_key_id(&old.root).unwrap()];
        let mut next = new.identity(ORDERS);
        next.bundle = Arc::new(TrustBundle { retired_keys, sequence: 2, ..(*new.bundle()).clone() });
        writer.send_replace(Arc::new(next.clone()));

        assert!(futures_util::poll!(Box::pin(server.distrusted(&session))).is_pending());
        let (server_io, client_io) = sockets().await;
        let mut stranger = web;
        stranger.bundle = Arc::clone(&next.bundle);
        let (accepted, _) = tokio::join!(server.accept(server_io), connect(mtls(stranger), client_io));
        assert!(accepted.is_err(), "it vouches for nobody new");

        next.bundle = Arc::new(TrustBundle { sequence: 3, ..(*new.bundle()).clone() });
        writer.send_replace(Arc::new(next));
        server.distrusted(&session).await;
    });
}

#[test]
fn t5_a_refused_intermediate_vouches_for_nobody_and_its_sessions_end() {
    corked(async {
        let ca = Ca::new("cluster.local");
        let (writer, reader) = watch::channel(Arc::new(ca.identity(ORDERS)));
        let server = Mtls::new(reader);
        let (client, orders) = (mtls(ca.identity(WEB)), id(ORDERS));
        let (server_io, client_io) = sockets().await;
        let (accepted, _) = tokio::join!(server.accept(server_io), client.connect(client_io, &orders));
        let session = accepted.unwrap().1;

        let mut next = (*server.identity()).clone();
        let refused_keys = vec![douane_proto::svid::subject_key_id(&ca.intermediate).unwrap()];
        next.bundle = Arc::new(TrustBundle { refused_keys, sequence: 2, ..(*ca.bundle()).clone() });
        writer.send_replace(Arc::new(next));

        server.distrusted(&session).await;
        let (server_io, client_io) = sockets().await;
        let (accepted, _) = tokio::join!(server.accept(server_io), client.connect(client_io, &orders));
        assert!(accepted.is_err());
    });
}

#[test]
fn a_key_is_never_printed() {
    let ca = Ca::new("cluster.local");
    let identity = ca.identity(WEB);
    let key = format!("{:?}", identity.svid.key.as_slice());
    let settings = super::settings::Settings::new(Arc::new(identity.clone()), Default::default()).unwrap();
    let printed = format!("{identity:?} {:?} {settings:?}", mtls(identity.clone()));
    assert!(!printed.contains(key.trim_matches(['[', ']'])));
}
