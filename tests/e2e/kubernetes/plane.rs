//! A control plane that reads its mesh from a real API server, by the rights of its own service account.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use douane_ca::{
    admin::{Answer, Command as Order, call},
    app::App,
    config::{Config, Kubernetes, Permission, Tokens, Webhook},
    install::{Crds, MeshFile, TOKEN_ISSUER, Wishes, manifests},
    state::StateFolder,
};
use douane_proto::svid::Svid;
use douane_tests::{
    kubernetes::{Cluster, ISSUER},
    wait::eventually,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::sidecar::{self, Watch};

/// Debug builds on busy machines; only a failure waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What `douane install` brings: definitions, the service account and its role.
pub(crate) const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ca/src/install");
/// The shop as ordinary YAML.
pub(crate) const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-cluster/shop");

/// A control plane that runs.
pub(crate) struct Plane {
    pub(crate) grpc: SocketAddr,
    metrics: SocketAddr,
    webhook: Option<SocketAddr>,
    state: PathBuf,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// An API with our definitions and rights.
pub(crate) fn installed() -> Cluster {
    let cluster = Cluster::start();
    define(&cluster);
    admit(&cluster);
    cluster
}

/// Our definitions of Istio's kinds.
pub(crate) fn define(cluster: &Cluster) {
    cluster.apply_folder(&Path::new(INSTALL).join("crds"));
    let named = ["authorizationpolicies", "peerauthentications", "requestauthentications"];
    for name in named {
        let crd = format!("crd/{name}.security.istio.io");
        let said = cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &crd]);
        assert!(said.ok, "{}", said.err);
    }
}

/// Our service account and what it may do.
pub(crate) fn admit(cluster: &Cluster) {
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: douane-system}\n");
    cluster.apply(&fs::read_to_string(Path::new(INSTALL).join("parts/rbac.yaml")).unwrap());
    keep_state(cluster);
}

/// Where what replicas share lies.
pub(crate) fn keep_state(cluster: &Cluster) {
    cluster.apply(&fs::read_to_string(Path::new(INSTALL).join("parts/state.yaml")).unwrap());
}

/// Namespaces with these labels, each with its default service account, as the controller manager would make it; it mounts
/// no token, so that a pod holds nothing whose name is drawn by lot.
pub(crate) fn namespaces(cluster: &Cluster, all: &[(&str, &str)]) {
    let yaml = |(name, labels): &(&str, &str)| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: default, namespace: {name}}}\n\
             automountServiceAccountToken: false\n---\n"
        )
    };
    cluster.apply(&all.iter().map(yaml).collect::<String>());
}

impl Plane {
    /// Starts one on `cluster`, as our service account.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster, |_| {}).await
    }

    /// Starts one that the API server asks before it stores pods and policies, and applies all that `douane install` prints.
    /// Nothing runs pods here, so that the service leads to this process instead of to our pods.
    pub(crate) async fn admitting(cluster: &Cluster, settle: impl FnOnce(&mut Config)) -> Self {
        let plane = Self::start_with(cluster, |config| {
            config.webhook = Some(Webhook { listen: "127.0.0.1:0".parse().unwrap() });
            // As the golden files of `douane inject` were made.
            config.injection.image = "registry.example/douane-proxy:1".to_owned();
            config.injection.exclusions = Permission::Permitted;
            settle(config);
        })
        .await;
        let port = plane.webhook.unwrap().port();
        let mesh = MeshFile::of_domains(&Config::default(), TOKEN_ISSUER);
        let text = manifests(&Wishes::default(), &mesh, Crds::Without);
        let parts = text.split("\n---\n").filter(|part| !part.contains("\nkind: Service\n"));
        let ours: String = parts.map(|part| format!("{part}\n---\n")).collect();
        cluster.apply(&ours.replace("port: 443\n", &format!("port: {port}\n")));
        cluster.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: douane-ca, namespace: douane-system}\n\
             spec: {type: ExternalName, externalName: localhost}\n",
        );
        plane
    }

    /// Starts one on `cluster`, as our service account.
    pub(crate) async fn start_with(cluster: &Cluster, settle: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::Builder::new().prefix("state-").tempdir_in(cluster.folder()).unwrap().keep();
        let jwks = state.with_extension("jwks.json");
        fs::write(&jwks, cluster.raw("/openid/v1/jwks")).unwrap();
        let mut config = Config {
            dir: Some(state.clone()),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            kubernetes: Some(Kubernetes {
                kubeconfig: Some(cluster.kubeconfig_of("douane-system", "douane-ca")),
                ..Kubernetes::default()
            }),
            tokens: Some(Tokens {
                jwks: jwks.display().to_string(),
                jwks_trust: None,
                issuer: ISSUER.to_owned(),
                audience: "douane-ca".to_owned(),
            }),
            ..Config::default()
        };
        settle(&mut config);
        let app = App::bind(config).await.unwrap();
        let addresses = app.addresses().unwrap();
        let stop = CancellationToken::new();
        let running = app.run(stop.clone());
        Self {
            grpc: addresses.grpc[0],
            metrics: addresses.metrics.unwrap(),
            webhook: addresses.webhook,
            state,
            stop,
            running: tokio::spawn(async move { running.await.unwrap() }),
        }
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// An SVID of the pod, by a token that is bound to it.
    pub(crate) async fn svid(&self, cluster: &Cluster, namespace: &str, pod: &str, account: &str) -> Svid {
        let bound = ["--audience", "douane-ca", "--bound-object-kind", "Pod", "--bound-object-name", pod];
        let token = cluster.token(namespace, account, &bound);
        sidecar::svid(self.grpc, &self.bundle(), token).await.unwrap()
    }

    /// A stream of the pod's sidecar.
    pub(crate) async fn watch(&self, svid: &Svid, workload: &str) -> Watch {
        Watch::open(self.grpc, &self.bundle(), svid, workload).await.unwrap()
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// An operator's word to it.
    pub(crate) async fn order(&self, order: Order) -> Answer {
        let folder = StateFolder::new(self.state.clone());
        tokio::task::spawn_blocking(move || call(&folder, &order)).await.unwrap().unwrap()
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.state.join("bundle.pem")
    }

    /// A page of its metrics listener.
    pub(crate) fn page(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.metrics);
        let out = std::process::Command::new("curl").args(["-s", &url]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }

    /// Its status page.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.page("/status")).unwrap_or_default()
    }

    /// Waits until it is ready.
    pub(crate) fn is_ready(&self) {
        eventually("the control plane is ready", LIMIT, || match self.page("/readyz").as_str() {
            "ready\n" => Ok(()),
            _ => Err(self.status().to_string()),
        });
    }
}

/// A pod as its kubelet would show it: it runs, is ready, and has these addresses.
pub(crate) fn run_pod(cluster: &Cluster, pod: &Pod<'_>) {
    let Pod { namespace, name, app, labels, sidecar, .. } = pod;
    let ours = if *sidecar {
        "\n  initContainers: [{name: douane-proxy, image: douane-proxy, restartPolicy: Always}]"
    } else {
        ""
    };
    cluster.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {app}, namespace: {namespace}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{app: {app}{labels}}}\n\
         spec:\n  serviceAccountName: {app}{ours}\n  containers: [{{name: {app}, image: shop, ports: [{{name: {port}, containerPort: {number}}}]}}]\n",
        port = pod.port.0,
        number = pod.port.1,
    ));
    give_addresses(cluster, pod);
}

/// A pod for [`run_pod`].
pub(crate) struct Pod<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Its label `app`, and its service account.
    pub(crate) app: &'a str,
    /// More labels, each after a comma.
    pub(crate) labels: &'a str,
    pub(crate) sidecar: bool,
    pub(crate) port: (&'a str, u16),
    pub(crate) addresses: &'a [&'a str],
}

pub(crate) fn give_addresses(cluster: &Cluster, pod: &Pod<'_>) {
    let all: Vec<Value> = pod.addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    let status = json!({
        "phase": "Running",
        "podIP": pod.addresses[0],
        "podIPs": all,
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    cluster.set_status(pod.namespace, &format!("pod/{}", pod.name), &status);
}
