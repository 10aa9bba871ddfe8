//! The sidecar's configuration: parsed once, typed, with its defaults here. A leaf: imports nothing of the sidecar.
//!
//! What changes while it runs (policies, workloads, roots) comes by discovery, not by configuration.

pub mod export;
mod limits;
pub mod probes;
pub mod propagators;
pub mod tracing;

use std::{convert::Infallible, fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use douane_proto::id::{TrustDomain, WorkloadId};
use serde::{Serialize, Serializer};

pub use self::limits::{Limits, Retries, Senseless};
use self::{export::Export, probes::AppProbes, tracing::Tracing};

/// All that a sidecar must be told.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// Where the control plane is.
    #[serde(serialize_with = "as_text")]
    pub control_plane: ControlPlaneAddress,
    /// The SPIFFE ID of the control plane.
    #[serde(serialize_with = "as_text")]
    pub control_plane_id: WorkloadId,
    /// PEM roots that the control plane's own certificate must chain to on first contact; a file, read at each connect.
    pub bundle_file: PathBuf,
    /// A projected service account token, or a join token; read anew at each issue.
    pub token_file: PathBuf,
    /// The SPIFFE Workload API that our identity comes from, `unix:///…`; `None` asks the control plane by the token.
    pub identity_source: Option<String>,
    /// SO_MARK of our sockets, in the lab.
    pub mark: Option<u32>,
    /// Wanted lifetime of our certificate; `None` asks for the authority's default.
    pub leaf_lifetime: Option<Duration>,
    /// Where the admin socket lies.
    pub run_dir: PathBuf,
    /// What applications are given of the pod's identity.
    pub workload: Workload,
    /// Ports that we listen on.
    pub ports: Ports,
    /// What is told of the traffic.
    pub telemetry: Telemetry,
    /// How much and how long others may keep us busy.
    pub limits: Limits,
    /// Bytes that peers and applications together may make us hold; `None` takes half of the memory that we may have.
    pub byte_budget: Option<usize>,
    /// How we end.
    pub drain: Drain,
    /// What the kubelet has us ask the application.
    pub app_probes: AppProbes,
}

/// The SPIFFE Workload API for the pod's applications.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Workload {
    /// Its unix socket; `None` serves none.
    pub socket: Option<PathBuf>,
    /// Whose requests are answered; `None` means everybody's who can reach the socket.
    pub uids: Option<Vec<u32>>,
}

/// Ports that we listen on; 0 lets the kernel choose.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ports {
    /// Redirected connections of the pod, on loopback only.
    pub outbound: u16,
    /// Redirected connections to the pod.
    pub inbound: u16,
    /// Health and metrics.
    pub health: u16,
}

/// What is told of the traffic.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Telemetry {
    /// Log filter, such as `info` or `info,douane_proxy::outbound=debug`.
    pub log: String,
    /// Which requests become spans.
    pub tracing: Tracing,
    /// Where spans go; `None`: nowhere.
    pub export: Option<Export>,
    /// What telemetry calls the workload, if not as the control plane says.
    pub service_name: Option<String>,
    /// The environment's name.
    pub environment: Option<String>,
    /// More resource attributes of spans, `key=value,key=value`.
    pub resource_attributes: String,
    /// Where a line is written for each request and stream.
    pub access_log: AccessLog,
    /// How such a line is written.
    pub access_log_format: LineFormat,
    /// Share of what went well that has a line.
    pub access_log_successes: Share,
    /// File with the key by which users' names are hashed; `None`: users are not named.
    pub user_key_file: Option<PathBuf>,
    /// Under which names metrics are told.
    pub metric_names: MetricNames,
    /// A metric's series that nothing touched for so long is forgotten; `None`: after an hour.
    pub metrics_idle: Option<Duration>,
    /// File to which a line is appended for each denial, and for what AUDIT policies want told.
    pub audit_log: Option<PathBuf>,
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum LineFormat {
    /// One JSON object.
    #[default]
    Json,
    /// Envoy's text, as in an Istio mesh.
    Envoy,
}

/// A part of a whole, 0.0 to 1.0.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Share(pub f64);

impl Default for Share {
    fn default() -> Self {
        Self(1.0)
    }
}

/// Under which names metrics are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum MetricNames {
    /// OpenTelemetry's and our own.
    #[default]
    Own,
    /// Istio's standard metrics as well.
    AlsoIstio,
}

/// Where the access log goes: `-`, `off`, or a file's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub enum AccessLog {
    /// Among the sidecar's own events, to standard output.
    #[default]
    Stdout,
    /// Nowhere: metrics, spans and the audit log tell.
    Off,
    /// Appended to a file.
    File(PathBuf),
}

/// How we end.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Drain {
    /// Serving goes on for this long after we said that we are not ready, so that peers learn of it first.
    pub delay: Duration,
    /// What still runs after this is dropped.
    pub limit: Duration,
}

/// `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneAddress {
    /// A name or an address.
    pub host: String,
    /// A port.
    pub port: u16,
}

/// Not of the form `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form https://host:port")]
pub struct NotAnAddress(String);

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::ZERO, limit: Duration::from_secs(30) }
    }
}

impl Config {
    /// The SPIFFE ID of the control plane in a trust domain.
    ///
    /// # Errors
    /// Never for a valid trust domain.
    pub fn control_plane_of(domain: &TrustDomain) -> Result<WorkloadId, douane_proto::id::IdError> {
        WorkloadId::new(domain, "douane-system", "douane-ca")
    }
}

impl FromStr for AccessLog {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Stdout,
            "off" => Self::Off,
            file => Self::File(file.into()),
        })
    }
}

impl FromStr for ControlPlaneAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.to_owned());
        let authority = text.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = (!host.is_empty() && !host.contains([':', '/', '@', '['])).then_some(host);
        Ok(Self {
            host: bracketed.or(plain).ok_or_else(wrong)?.to_owned(),
            port: port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        })
    }
}

impl fmt::Display for ControlPlaneAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_log_goes_to_standard_output_nowhere_or_to_a_file() {
        for (text, expected) in [
            ("-", AccessLog::Stdout),
            ("off", AccessLog::Off),
            ("/var/log/access.json", AccessLog::File("/var/log/access.json".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
    }

    #[test]
    fn a_control_plane_is_named_by_scheme_host_and_port() {
        for text in [
            "https://10.77.0.1:15012",
            "https://[fd77::1]:15012",
            "https://douane-ca.douane-system.svc:15012",
        ] {
            assert_eq!(text.parse::<ControlPlaneAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "http://a:1",
            "https://a",
            "https://:1",
            "https://a:0",
            "https://fd77::1:15012",
            "https://a:b",
        ] {
            assert!(text.parse::<ControlPlaneAddress>().is_err(), "{text:?} must be refused");
        }
    }
}
