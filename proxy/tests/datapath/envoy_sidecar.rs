//! A real Envoy, configured as the control plane of an Istio mesh configures its sidecars: mutual TLS with SPIFFE names, its
//! names of protocols, RBAC on the peer's principal. Nothing but what it is told here.
//!
//! Found where `tests/counterparts.sh` puts it, or on the path; where it is missing, tests skip aloud.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use douane_proto::svid::Identity;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::apps::raw;

const TYPE: &str = "type.googleapis.com/envoy";
const START: Duration = Duration::from_secs(20);

/// A running Envoy; it ends with the test.
pub(crate) struct Envoy {
    child: Child,
    folder: PathBuf,
    admin: SocketAddr,
}

/// What an Envoy is told: who it is, and its listeners and clusters.
pub(crate) struct Sidecar<'a> {
    /// Its certificate, key and roots.
    pub(crate) identity: &'a Identity,
    /// Of the first of them it may take requests.
    pub(crate) callers: &'a [&'a str],
    /// The application behind it.
    pub(crate) app: SocketAddr,
    /// Whom its own application calls, and who must answer there.
    pub(crate) peer: (SocketAddr, &'a str),
}

/// Where Envoy is; `None`, said aloud, where it is missing.
pub(crate) fn program() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/counterparts/venv/bin/envoy");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = std::iter::once(ours).chain(env::split_paths(&path).map(|folder| folder.join("envoy")));
    let found = places.find(|place| place.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: envoy is missing; tests/counterparts.sh brings it");
    }
    found
}

impl Envoy {
    /// Starts it and waits until it serves.
    pub(crate) async fn start(program: &Path, sidecar: &Sidecar<'_>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("douane-envoy-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let chain: String = sidecar.identity.svid.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        fs::write(folder.join("chain.pem"), chain).unwrap();
        fs::write(folder.join("key.pem"), pem("PRIVATE KEY", &sidecar.identity.svid.key)).unwrap();
        let roots: String = sidecar.identity.bundle.roots.iter().map(|der| pem("CERTIFICATE", der)).collect();
        fs::write(folder.join("roots.pem"), roots).unwrap();
        fs::write(folder.join("envoy.json"), sidecar.bootstrap(&folder).to_string()).unwrap();
        let said = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .arg("-c")
            .arg(folder.join("envoy.json"))
            .arg("--admin-address-path")
            .arg(folder.join("admin"))
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut envoy = Self { child, folder, admin: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let started = tokio::time::timeout(START, envoy.serves()).await;
        assert!(started.is_ok(), "{}", fs::read_to_string(envoy.folder.join("log")).unwrap_or_default());
        envoy
    }

    async fn serves(&mut self) {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let told = fs::read_to_string(self.folder.join("admin")).unwrap_or_default();
            let Ok(admin) = told.trim().parse() else { continue };
            self.admin = admin;
            let Ok(mut stream) = TcpStream::connect(admin).await else { continue };
            let ready =
                raw(&mut stream, b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "").await;
            if ready.contains("LIVE") {
                return;
            }
        }
    }

    /// Where one of its listeners is.
    pub(crate) async fn listener(&self, name: &str) -> SocketAddr {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let told =
            raw(&mut stream, b"GET /listeners HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "").await;
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::"));
        line.unwrap_or_else(|| panic!("no listener {name}: {told}")).parse().unwrap()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Sidecar<'_> {
    fn bootstrap(&self, folder: &Path) -> Value {
        json!({
            "admin": {"address": socket([127, 0, 0, 1])},
            "static_resources": {
                "listeners": [
                    self.inbound(folder),
                    listener("to-http1", &http_proxy("peer-http1", json!([]))),
                    listener("to-h2", &http_proxy("peer-h2", json!([]))),
                    listener("to-tcp", &tcp_proxy("peer-tcp", "peer-tcp")),
                    listener("to-app-in-plaintext", &http_proxy("app", json!([]))),
                ],
                "clusters": [
                    self.app(),
                    self.peer(folder, "peer-http1", "http_protocol_options", &["istio-http/1.1", "istio", "http/1.1"]),
                    self.peer(folder, "peer-h2", "http2_protocol_options", &["istio-h2", "istio", "h2"]),
                    self.peer(folder, "peer-tcp", "http_protocol_options", &["istio-peer-exchange", "istio"]),
                ],
            },
        })
    }

    // Chains as pilot builds them for STRICT: Istio's names lead to HTTP, its other names to bytes.
    fn inbound(&self, folder: &Path) -> Value {
        let tls = json!({
            "name": "tls",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": true,
                "common_tls_context": common_tls(folder, None, &["h2", "http/1.1"]),
            },
        });
        let principals: Vec<Value> = self
            .callers
            .iter()
            .map(|id| json!({"authenticated": {"principal_name": {"exact": id}}}))
            .collect();
        let rules = json!({
            "action": "ALLOW",
            "policies": {"callers": {"permissions": [{"any": true}], "principals": principals}},
        });
        let http_rbac = json!({
            "name": "rbac",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.http.rbac.v3.RBAC"), "rules": rules,
            },
        });
        let rbac = json!({
            "name": "rbac",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.network.rbac.v3.RBAC"),
                "stat_prefix": "rbac",
                "rules": rules,
            },
        });
        let names = |names: &[&str]| json!({"transport_protocol": "tls", "application_protocols": names});
        json!({
            "name": "inbound",
            "address": socket([127, 0, 4, 1]),
            "listener_filters": [{
                "name": "tls_inspector",
                "typed_config": {
                    "@type": format!("{TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector"),
                },
            }],
            "filter_chains": [
                {
                    "filter_chain_match": names(&["istio-http/1.0", "istio-http/1.1", "istio-h2"]),
                    "transport_socket": tls,
                    "filters": [http_proxy("app", json!([http_rbac]))],
                },
                {
                    "filter_chain_match": names(&["istio", "istio-peer-exchange"]),
                    "transport_socket": tls,
                    "filters": [rbac, tcp_proxy("app", "inbound")],
                },
            ],
        })
    }

    fn app(&self) -> Value {
        json!({
            "name": "app",
            "connect_timeout": "1s",
            "load_assignment": endpoint("app", self.app),
            "typed_extension_protocol_options": protocol_options(json!({
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            })),
        })
    }

    fn peer(&self, folder: &Path, name: &str, options: &str, alpn: &[&str]) -> Value {
        let (address, expected) = self.peer;
        json!({
            "name": name,
            "connect_timeout": "1s",
            "load_assignment": endpoint(name, address),
            "typed_extension_protocol_options":
                protocol_options(json!({"explicit_http_config": {options: {}}})),
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
                    "sni": "outbound_.80_._.orders.shop.svc.cluster.local",
                    "common_tls_context": common_tls(folder, Some(expected), alpn),
                },
            },
        })
    }
}

fn common_tls(folder: &Path, expected: Option<&str>, alpn: &[&str]) -> Value {
    let file = |name: &str| json!({"filename": folder.join(name)});
    let mut validation = json!({"trusted_ca": file("roots.pem")});
    if let Some(expected) = expected {
        validation["match_typed_subject_alt_names"] =
            json!([{"san_type": "URI", "matcher": {"exact": expected}}]);
    }
    json!({
        "alpn_protocols": alpn,
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [{"certificate_chain": file("chain.pem"), "private_key": file("key.pem")}],
        "validation_context": validation,
    })
}

fn socket(ip: [u8; 4]) -> Value {
    json!({"socket_address": {"address": std::net::Ipv4Addr::from(ip).to_string(), "port_value": 0}})
}

fn endpoint(cluster: &str, address: SocketAddr) -> Value {
    let address = json!({"address": address.ip().to_string(), "port_value": address.port()});
    let endpoint = json!({"endpoint": {"address": {"socket_address": address}}});
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]})
}

fn listener(name: &str, filter: &Value) -> Value {
    json!({"name": name, "address": socket([127, 0, 4, 1]), "filter_chains": [{"filters": [filter]}]})
}

fn protocol_options(options: Value) -> Value {
    let mut options = options;
    options["@type"] = json!(format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"));
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options})
}

// What it saw of the connection is told to the application.
fn http_proxy(cluster: &str, filters: Value) -> Value {
    let mut filters = filters;
    filters.as_array_mut().unwrap().push(json!({
        "name": "router",
        "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.router.v3.Router")},
    }));
    let saw = |name: &str, what: &str| json!({"header": {"key": name, "value": what}});
    json!({
        "name": "http",
        "typed_config": {
            "@type":
                format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "http",
            "codec_type": "AUTO",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "http_filters": filters,
            "route_config": {
                "request_headers_to_add": [
                    saw("x-envoy-saw-peer", "%DOWNSTREAM_PEER_URI_SAN%"),
                    saw("x-envoy-saw-name", "%REQUESTED_SERVER_NAME%"),
                    saw("x-envoy-saw-version", "%PROTOCOL%"),
                ],
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
                }],
            },
        },
    })
}

fn tcp_proxy(cluster: &str, prefix: &str) -> Value {
    json!({
        "name": "tcp",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": prefix,
            "cluster": cluster,
        },
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
            let bits = bits << (8 * (3 - three.len()));
            for place in 0..4 {
                let digit = DIGITS[bits >> (18 - 6 * place) & 63];
                text.push(if place > three.len() { '=' } else { digit.into() });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
