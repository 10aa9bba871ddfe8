//! The sidecar's configuration: parsed once, typed, with its defaults here. A leaf: imports nothing of the sidecar.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// All that a sidecar must be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// Control plane, such as `https://10.77.0.1:15012`.
    pub control_plane: String,
    /// PEM roots that the control plane's own certificate must chain to on first contact; a file, read at each connect.
    pub bundle_file: PathBuf,
    /// The SPIFFE ID of the control plane.
    pub control_plane_id: String,
    /// A projected service account token; read anew at each issue.
    pub token_file: Option<PathBuf>,
    /// SO_MARK of our sockets, in the lab.
    pub mark: Option<u32>,
    /// Wanted lifetime of our certificate; `None` asks for the authority's default.
    pub leaf_lifetime: Option<Duration>,
    /// Share of new traces that are exported.
    pub trace_ratio: f64,
    /// OTLP/gRPC collector, such as `http://127.0.0.1:4317`.
    pub otlp_endpoint: Option<String>,
    /// `OTEL_SERVICE_NAME`: what telemetry calls the workload; the control plane's name for it by default.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`: `key=value,…`, added to what spans say of the workload.
    pub resource_attributes: Option<String>,
    /// `deployment.environment.name` of spans and logs.
    pub environment: Option<String>,
}
