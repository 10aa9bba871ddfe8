//! The socket as its clients see it: who is heard, what is told and when, and what nobody can do to it. Real
//! certificates, foreign clients and rotations are tested from outside (`tests/e2e/workload`).

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use douane_proto::{
    bundle::ForeignBundle,
    id::{TrustDomain, WorkloadId},
    svid::{Identity, Leaf, Svid, TrustBundle},
    workload_api::{
        X509BundlesRequest, X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
    },
};
use http::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt as _, net::UnixStream, sync::watch};
use tonic::{
    Code, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

use super::{
    Source,
    guard::Guard,
    socket::{Bounds, Workload, bind},
};
use crate::{
    identity::{application::Application, issuer::Issuer, tokens::Tokens},
    tls::channel::{ControlPlane, Dialer},
};

const PATIENCE: Duration = Duration::from_secs(20);
const BOUNDS: Bounds =
    Bounds { connections: 4, streams: 4, reading: Duration::from_millis(200), idle: Duration::from_secs(60) };

struct Bench {
    path: PathBuf,
    federated: watch::Sender<Arc<[ForeignBundle]>>,
    identity: watch::Sender<Arc<Identity>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn bundle(sequence: u64) -> Arc<TrustBundle> {
    let trust_domain = TrustDomain::parse("cluster.local").unwrap();
    let root = format!("root {sequence}").into_bytes();
    Arc::new(TrustBundle { sequence, ..TrustBundle::of_roots(trust_domain, vec![root]) })
}

fn identity() -> Identity {
    let id: WorkloadId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let leaf = Leaf { id, not_before: 0, not_after: i64::MAX, serial: String::new() };
    let svid = Svid { leaf, chain: vec![vec![1]], key: Arc::default() };
    Identity { svid, bundle: bundle(1), generation: 1 }
}

fn source(
    identity: &watch::Sender<Arc<Identity>>,
    federated: watch::Receiver<Arc<[ForeignBundle]>>,
) -> Source {
    let id = identity.borrow().svid.leaf.id.clone();
    let dialer = Dialer::new(|_| async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
    let control_plane =
        ControlPlane { host: "127.0.0.1".to_owned(), port: 1, id, bundle_file: "/none".into(), dialer };
    let tokens = Tokens::new(control_plane.clone(), identity.subscribe());
    let issuer = Issuer::new(control_plane, "shop".to_owned(), "/none".into(), None);
    let (application, keeper) = Application::new(issuer, identity.subscribe());
    tokio::task::spawn_local(keeper.run());
    Source { identity: identity.subscribe(), federated, application, tokens }
}

/// A socket that serves what there is, within small bounds.
fn served(name: &str, uids: Option<Vec<u32>>, bounds: Bounds) -> Bench {
    let path = std::env::temp_dir().join(format!("douane-workload-{}-{name}.sock", std::process::id()));
    let identity = watch::Sender::new(Arc::new(identity()));
    let (sources, seen) = watch::channel(None);
    let federated = watch::Sender::new(Arc::from([]));
    let listener = bind(&path).unwrap();
    if name != "unready" {
        sources.send_replace(Some(source(&identity, federated.subscribe())));
    }
    tokio::task::spawn_local(Workload::new(seen, uids).within(bounds).run(listener));
    Bench { path, federated, identity }
}

async fn channel(bench: &Bench) -> Channel {
    let path = bench.path.clone();
    let connect = tower_service_fn(move || {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    Endpoint::from_static("http://workload").connect_with_connector(connect).await.unwrap()
}

fn with_header<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", AsciiMetadataValue::from_static("true"));
    request
}

fn on_one_thread(test: impl Future<Output = ()>) {
    let local = tokio::runtime::LocalOptions::default();
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(local).unwrap().block_on(test);
}

async fn in_time<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, awaited).await.unwrap_or_else(|_| panic!("never: {what}"))
}

// tower's own is not among our guests.
fn tower_service_fn<F, C>(connect: F) -> Connect<F>
where
    F: Fn() -> C,
{
    Connect(connect)
}

struct Connect<F>(F);

impl<F, C, T> tower_service::Service<http::Uri> for Connect<F>
where
    F: Fn() -> C,
    C: Future<Output = Result<T, std::io::Error>> + Send + 'static,
{
    type Response = T;
    type Error = std::io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<T, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), std::io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin((self.0)())
    }
}

fn headers(values: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append("workload.spiffe.io", http::HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn t14_a_header_that_is_missing_misspelt_or_sent_twice_shows_a_forged_request() {
    let guard = Guard::new(None);
    let now = std::time::Instant::now();
    for wrong in [&[][..], &["TRUE"], &["True"], &["1"], &[""], &["true", "true"], &["true", "false"]] {
        let refused = guard.admit(&headers(wrong), 0, now).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
        assert!(refused.message().contains("workload.spiffe.io: true"), "{}", refused.message());
    }
    guard.admit(&headers(&["true"]), 0, now).unwrap();
}

#[test]
fn t15_of_two_uids_only_the_listed_one_is_served() {
    let guard = Guard::new(Some([1000].into()));
    let now = std::time::Instant::now();

    guard.admit(&headers(&["true"]), 1000, now).unwrap();
    let refused = guard.admit(&headers(&["true"]), 0, now).unwrap_err();

    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("no identity issued: uid 0 "), "{}", refused.message());
}

#[test]
fn t15_the_kernel_says_whose_process_asks() {
    on_one_thread(async {
        let own = rustix::process::geteuid().as_raw();
        for (name, uid, expected) in [("own", own, None), ("other", own + 1, Some(Code::PermissionDenied))] {
            let bench = served(name, Some(vec![uid]), BOUNDS);
            let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
            let answer = client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await;
            assert_eq!(answer.err().map(|status| status.code()), expected);
        }
    });
}

#[test]
fn w2_a_request_without_the_security_header_is_invalid() {
    on_one_thread(async {
        let bench = served("header", None, BOUNDS);
        let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
        let refused = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let refused = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    });
}

#[test]
fn w3_before_the_first_certificate_clients_are_told_to_come_back() {
    on_one_thread(async {
        let bench = served("unready", None, BOUNDS);
        let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
        let refused = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
    });
}

#[test]
fn w3_an_authority_that_cannot_be_reached_is_told_at_once() {
    on_one_thread(async {
        let bench = served("unreachable", None, BOUNDS);
        let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
        let asked = client.fetch_x509svid(with_header(X509svidRequest {}));
        let refused = in_time("an answer", asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    });
}

#[test]
fn w3_an_unknown_call_is_unimplemented() {
    on_one_thread(async {
        let bench = served("unknown", None, BOUNDS);
        for path in ["/SpiffeWorkloadAPI/FetchWITSVID", "/some.Service/Method", "/"] {
            let status = raw_call(&bench, path).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
        }
    });
}

// A call of any name; its status.
async fn raw_call(bench: &Bench, path: &str) -> Status {
    let stream = UnixStream::connect(&bench.path).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(connection);
    let mut sender = sender.ready().await.unwrap();
    let (answer, _) = sender.send_request(request(path), true).unwrap();
    let answer = in_time("an answer", answer).await.unwrap();
    Status::from_header_map(answer.headers()).expect("a status without a body")
}

fn request(path: &str) -> Request<()> {
    Request::post(format!("http://workload{path}"))
        .header("workload.spiffe.io", "true")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

#[test]
fn w5_the_whole_state_comes_at_once_and_again_when_the_roots_change_and_only_then() {
    on_one_thread(async {
        let bench = served("bundles", None, BOUNDS);
        let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
        let answer = client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap();
        let mut updates = answer.into_inner();

        let first = in_time("the first message", updates.message()).await.unwrap().unwrap();
        assert_eq!(first.bundles["spiffe://cluster.local"], b"root 1");

        // A renewal of the sidecar's own certificate is no news, a new bundle is.
        let held = Arc::clone(&bench.identity.borrow().bundle);
        bench.identity.send_replace(Arc::new(Identity { generation: 2, bundle: held, ..identity() }));
        tokio::task::yield_now().await;
        bench.identity.send_replace(Arc::new(Identity { bundle: bundle(2), ..identity() }));
        let second = in_time("the second message", updates.message()).await.unwrap().unwrap();
        assert_eq!(second.bundles["spiffe://cluster.local"], b"root 2");
    });
}

#[test]
fn w7_the_bundles_include_the_own_trust_domain_by_its_id() {
    on_one_thread(async {
        let bench = served("own-bundle", None, BOUNDS);
        let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
        let answer = client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap();
        let first = in_time("a message", answer.into_inner().message()).await.unwrap().unwrap();
        assert_eq!(first.bundles.keys().collect::<Vec<_>>(), ["spiffe://cluster.local"]);
    });
}

#[test]
fn w7_federated_bundles_come_under_their_own_names_and_are_taken_back() {
    on_one_thread(async {
        let bench = served("federated", None, BOUNDS);
        let domain = |name: &str| TrustDomain::parse(name).unwrap();
        let foreign = |name: &str, roots: Vec<Vec<u8>>| ForeignBundle {
            trust_domain: domain(name),
            roots,
            jwt_keys: r#"{"keys":[]}"#.into(),
        };
        let mut client = SpiffeWorkloadApiClient::new(channel(&bench).await);
        let answer = client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap();
        let mut updates = answer.into_inner();
        in_time("the first message", updates.message()).await.unwrap().unwrap();

        // One that is redacted, and one that would take our own place.
        let ours = foreign("cluster.local", vec![b"forged".to_vec()]);
        let redacted = foreign("c.example", Vec::new());
        let theirs = foreign("b.example", vec![b"one".to_vec(), b"two".to_vec()]);
        bench.federated.send_replace(Arc::new([ours, redacted, theirs]));
        let second = in_time("the second message", updates.message()).await.unwrap().unwrap();
        let told: Vec<_> = second.bundles.iter().map(|(id, roots)| (id.as_str(), roots.as_slice())).collect();
        assert_eq!(
            told,
            [("spiffe://b.example", &b"onetwo"[..]), ("spiffe://cluster.local", &b"root 1"[..])]
        );

        bench.federated.send_replace(Arc::new([]));
        let third = in_time("the third message", updates.message()).await.unwrap().unwrap();
        assert_eq!(third.bundles.len(), 1);
    });
}

#[test]
fn a_client_that_does_not_read_is_left() {
    on_one_thread(async {
        let bench = served("slow", None, BOUNDS);
        let stream = UnixStream::connect(&bench.path).await.unwrap();
        // Takes no byte of a message.
        let (sender, connection) =
            h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut body) =
            sender.send_request(request("/SpiffeWorkloadAPI/FetchX509Bundles"), false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        in_time("the head of an answer", answer).await.unwrap();
        bench.identity.send_replace(Arc::new(Identity { bundle: bundle(2), ..identity() }));

        let _ended = in_time("the end of the connection", connection).await.unwrap();
    });
}

#[test]
fn one_uid_has_half_of_the_connections_and_a_freed_place_is_taken_again() {
    on_one_thread(async {
        let bench = served("crowd", None, BOUNDS);
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(channel(&bench).await);
        }
        for client in &held {
            let mut client = SpiffeWorkloadApiClient::new(client.clone());
            client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap();
        }

        let mut third = UnixStream::connect(&bench.path).await.unwrap();
        assert_eq!(in_time("the end of the third", third.read(&mut [0])).await.unwrap(), 0);

        held.clear();
        in_time("a place for the next", async {
            loop {
                let mut next = SpiffeWorkloadApiClient::new(channel(&bench).await);
                if next.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    });
}

#[test]
fn a_connection_that_asks_nothing_is_closed() {
    on_one_thread(async {
        let bounds = Bounds { idle: Duration::from_millis(100), ..BOUNDS };
        let bench = served("silent", None, bounds);
        let mut silent = UnixStream::connect(&bench.path).await.unwrap();
        let mut sent = Vec::new();
        in_time("its end", silent.read_to_end(&mut sent)).await.unwrap();
    });
}

#[test]
fn more_requests_than_are_bearable_are_told_to_come_back() {
    let guard = Guard::new(None);
    let now = std::time::Instant::now();
    let refused = (0..1000).find_map(|_| guard.admit(&headers(&["true"]), 0, now).err()).unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    guard.admit(&headers(&["true"]), 0, now + Duration::from_secs(1)).unwrap();
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_left_alone() {
    on_one_thread(async {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("douane-workload-{}-stale.sock", std::process::id()));
        drop(bind(&path).unwrap());
        drop(bind(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
    });
}
