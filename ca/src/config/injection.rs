//! What injected pods get: which image, which order, which resources. One value for the webhook and for `douane inject`.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

/// The sidecar's uid in a cluster, which the redirection spares.
const PROXY_UID: u32 = 2112;

/// What injected pods get.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Injection {
    /// The sidecar's image. It also holds `douane-proxy redirect` and `douane-proxy await`.
    pub image: String,
    /// When the image is pulled; Kubernetes' own default when absent.
    pub image_pull_policy: Option<PullPolicy>,
    /// Where sidecars find the control plane.
    pub control_plane: String,
    /// In which order a pod's containers start.
    pub order: Order,
    /// May pods have ports and networks that the mesh does not see?
    pub exclusions: Permission,
    /// What the sidecar may take.
    pub resources: Resources,
    /// The sidecar's uid.
    pub uid: u32,
    /// The environment's name in logs and spans.
    pub environment: Option<String>,
    /// OTLP/gRPC collector for spans.
    pub otlp: Option<String>,
    /// Which traces that begin at a pod are exported.
    pub trace_sampler: Option<String>,
    /// The sidecar's log filter.
    pub log: Option<String>,
    /// Namespaces whose pods are never injected, besides our own and those of Kubernetes.
    pub excluded_namespaces: Vec<String>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// Where the node has none.
    IfNotPresent,
    /// Never.
    Never,
}

/// In which order a pod's containers start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The sidecar is an init container that stays (`restartPolicy: Always`): before all others, ends after them.
    /// Kubernetes 1.29 and later.
    #[default]
    Native,
    /// The sidecar is the first container, and the others wait for it; init containers have no network.
    Classic,
}

/// May pods have ports and networks that the mesh does not see?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Pods that ask for one are refused.
    #[default]
    Refused,
    /// A pod's annotations may say so.
    Permitted,
}

/// What the sidecar may take, in Kubernetes' quantities.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Resources {
    /// Requested processor time.
    pub cpu_request: String,
    /// Most processor time; none by default, since throttling is latency.
    pub cpu_limit: Option<String>,
    /// Requested memory.
    pub memory_request: String,
    /// Most memory.
    pub memory_limit: String,
    /// Processor time in a pod of class Guaranteed, where request and limit must be the same.
    pub guaranteed_cpu: String,
}

/// The admission webhook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Webhook {
    /// Where it is served.
    pub listen: SocketAddr,
}

impl Injection {
    /// How long a token for us lives; the kubelet renews it in time.
    pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            image: concat!("douane-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            control_plane: format!("https://{}:{}", super::SERVICE_NAME, super::GRPC_PORT),
            order: Order::default(),
            exclusions: Permission::default(),
            resources: Resources::default(),
            uid: PROXY_UID,
            environment: None,
            otlp: None,
            trace_sampler: None,
            log: None,
            excluded_namespaces: Vec::new(),
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: "10m".to_owned(),
            cpu_limit: None,
            memory_request: "16Mi".to_owned(),
            memory_limit: "64Mi".to_owned(),
            guaranteed_cpu: "100m".to_owned(),
        }
    }
}
