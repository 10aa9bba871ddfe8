//! The flags of `run`, each with its environment variable, and what they mean.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use douane_proto::id::TrustDomain;

use crate::{
    app::{self, App},
    cli::{bounds::Bounds, export::Exporter, traces::Traces},
    config::{
        AccessLog, Config, ControlPlaneAddress, Drain, LineFormat, MetricNames, Ports, Share, Telemetry,
        Workload, probes::AppProbes,
    },
    redirect::plan::{HEALTH_PORT, INBOUND_PORT, OUTBOUND_PORT},
};

/// Where the admin socket lies, unless told otherwise.
pub(super) const RUN_DIR: &str = "/run/douane";
/// The name of the workload socket in there.
const WORKLOAD_SOCKET: &str = "workload.sock";

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The pod's namespace. The certificate that comes must be of it.
    #[arg(long, env = "DOUANE_NAMESPACE")]
    namespace: String,
    /// The pod's name.
    #[arg(long, env = "DOUANE_POD")]
    pod: String,
    /// An address of the pod; give each (repeated, or separated by commas).
    #[arg(long, env = "DOUANE_POD_IP", required = true, value_delimiter = ',')]
    pod_ip: Vec<IpAddr>,
    /// The control plane, such as https://10.77.0.1:15012.
    #[arg(long, env = "DOUANE_CONTROL_PLANE")]
    control_plane: ControlPlaneAddress,
    /// PEM file with the roots that vouch for the control plane on first contact. Later ones come from it.
    #[arg(long, env = "DOUANE_BUNDLE_FILE")]
    bundle_file: PathBuf,
    /// File with the pod's service account token (or a join token). Read anew each time.
    #[arg(long, env = "DOUANE_TOKEN_FILE", required_unless_present = "identity_source")]
    token_file: Option<PathBuf>,
    /// Take our identity from this SPIFFE Workload API, such as unix:///run/spire/agent.sock, and not from the control
    /// plane. Applications ask it themselves; we serve them none.
    #[arg(long, env = "DOUANE_IDENTITY_SOURCE", value_name = "URL", value_parser = endpoint)]
    identity_source: Option<String>,
    /// The mesh's trust domain. The control plane must be spiffe://TRUST-DOMAIN/ns/douane-system/sa/douane-ca.
    #[arg(long, env = "DOUANE_TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    trust_domain: TrustDomain,
    /// Mark our sockets, where `redirect install --mark` spares a mark instead of a uid.
    #[arg(long, env = "DOUANE_MARK")]
    mark: Option<u32>,
    /// Ask for certificates of this lifetime, such as 10s or 1h. The authority has the last word.
    #[arg(long, env = "DOUANE_LEAF_TTL", value_parser = humantime::parse_duration)]
    leaf_ttl: Option<Duration>,
    /// What telemetry calls the workload. Without it: as the control plane says.
    #[arg(long, env = "OTEL_SERVICE_NAME")]
    service_name: Option<String>,
    /// More attributes of spans: key=value,key=value.
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", default_value = "")]
    resource_attributes: String,
    /// The environment's name in logs and spans, such as production.
    #[arg(long, env = "DOUANE_ENVIRONMENT")]
    environment: Option<String>,
    /// Log filter, such as info or info,douane_proxy::outbound=debug.
    #[arg(long, env = "DOUANE_LOG", default_value = "info")]
    log: String,
    /// Where a JSON line is written for each request and stream: `-` is standard output, `off` nowhere, anything else a
    /// file that is appended to, made with mode 0600.
    #[arg(long, env = "DOUANE_ACCESS_LOG", default_value = "-", value_name = "FILE|off|-")]
    access_log: AccessLog,
    /// How a line of the access log is written: a JSON object, or Envoy's text as in an Istio mesh.
    #[arg(long, env = "DOUANE_ACCESS_LOG_FORMAT", default_value = "json", value_enum)]
    access_log_format: Line,
    /// Share of requests and streams that went well which have a line in the access log, 0.0 to 1.0. What failed or was
    /// refused always has one.
    #[arg(long, env = "DOUANE_ACCESS_LOG_SUCCESSES", default_value_t = 1.0, value_parser = ratio, value_name = "SHARE")]
    access_log_successes: f64,
    /// File with a key of 16 bytes or more: logs then name the user of a request's token by a hash with this key. Without
    /// it they name none.
    #[arg(long, env = "DOUANE_USER_KEY_FILE", value_name = "FILE")]
    user_key_file: Option<PathBuf>,
    /// Tell Istio's standard metrics (istio_requests_total and others) as well, so that dashboards made for them work.
    #[arg(long, env = "DOUANE_ISTIO_METRICS")]
    istio_metrics: bool,
    /// Forget a metric's series (of a caller, a policy) that nothing touched for so long.
    #[arg(long, env = "DOUANE_METRICS_IDLE", default_value = "1h", value_parser = humantime::parse_duration)]
    metrics_idle: Duration,
    /// Append a JSON line to this file for each denial, and for each request that an AUDIT policy names. Made with mode
    /// 0600. None: the access log alone tells.
    #[arg(long, env = "DOUANE_AUDIT_LOG")]
    audit_log: Option<PathBuf>,
    /// Directory of the admin socket; it is made.
    #[arg(long, env = "DOUANE_RUN_DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
    /// Unix socket of the SPIFFE Workload API for the pod's applications, or `off`. Without it: workload.sock in the run
    /// directory. Applications find it by SPIFFE_ENDPOINT_SOCKET=unix:///run/douane/workload.sock.
    #[arg(long, env = "DOUANE_WORKLOAD_SOCKET", value_name = "FILE|off")]
    workload_socket: Option<PathBuf>,
    /// Answer only processes of these uids on the workload socket (separated by commas). Without it: everybody in the pod.
    #[arg(long, env = "DOUANE_WORKLOAD_UIDS", value_delimiter = ',')]
    workload_uids: Option<Vec<u32>>,
    /// What the kubelet would ask the pod's containers, as the injector writes it (JSON): /app-health/CONTAINER/livez and
    /// its like on the health port ask it of the application.
    #[arg(long, env = "DOUANE_APP_PROBES", value_name = "JSON", default_value = "{}")]
    app_probes: AppProbes,
    #[command(flatten)]
    exporter: Exporter,
    #[command(flatten)]
    traces: Traces,
    #[command(flatten)]
    bounds: Bounds,
    /// On SIGTERM, go on serving for this long after readiness ended, so that peers learn of it first.
    #[arg(long, env = "DOUANE_DRAIN_DELAY", default_value = "0s", value_parser = humantime::parse_duration)]
    drain_delay: Duration,
    /// On SIGTERM, drop what still runs after this.
    #[arg(long, env = "DOUANE_DRAIN_LIMIT", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_limit: Duration,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Line {
    Json,
    Envoy,
}

impl From<Line> for LineFormat {
    fn from(line: Line) -> Self {
        match line {
            Line::Json => Self::Json,
            Line::Envoy => Self::Envoy,
        }
    }
}

impl Run {
    pub(super) fn obey(self) -> anyhow::Result<()> {
        let config = self.config()?;
        app::harden()?;
        let runtime = app::runtime().context("start the runtime")?;
        runtime.block_on(async {
            let app = App::bind(config)?;
            app.run_until_signalled().await
        })
    }

    fn config(self) -> anyhow::Result<Config> {
        let control_plane_id =
            Config::control_plane_of(&self.trust_domain).context("name the control plane")?;
        if self.identity_source.is_some()
            && self.workload_socket.as_ref().is_some_and(|it| it.as_os_str() != "off")
        {
            bail!(
                "with --identity-source applications ask that source themselves: leave --workload-socket out"
            );
        }
        let socket = match (self.workload_socket, &self.identity_source) {
            (Some(socket), _) => Some(socket).filter(|socket| socket.as_os_str() != "off"),
            (None, Some(_)) => None,
            (None, None) => Some(self.run_dir.join(WORKLOAD_SOCKET)),
        };
        Ok(Config {
            namespace: self.namespace,
            pod: self.pod,
            pod_ips: self.pod_ip,
            control_plane: self.control_plane,
            control_plane_id,
            bundle_file: self.bundle_file,
            token_file: self.token_file.unwrap_or_default(),
            identity_source: self.identity_source,
            mark: self.mark,
            leaf_lifetime: self.leaf_ttl,
            run_dir: self.run_dir,
            workload: Workload { socket, uids: self.workload_uids },
            ports: Ports { outbound: OUTBOUND_PORT, inbound: INBOUND_PORT, health: HEALTH_PORT },
            telemetry: Telemetry {
                log: self.log,
                tracing: self.traces.tracing()?,
                export: self.exporter.export(|name| std::env::var(name).ok())?,
                service_name: self.service_name,
                environment: self.environment,
                resource_attributes: self.resource_attributes,
                access_log: self.access_log,
                access_log_format: self.access_log_format.into(),
                access_log_successes: Share(self.access_log_successes),
                user_key_file: self.user_key_file,
                metric_names: if self.istio_metrics { MetricNames::AlsoIstio } else { MetricNames::Own },
                metrics_idle: Some(self.metrics_idle),
                audit_log: self.audit_log.filter(|file| !file.as_os_str().is_empty()),
            },
            limits: self.bounds.limits().context("read the limits")?,
            byte_budget: self.bounds.byte_budget(),
            drain: Drain { delay: self.drain_delay, limit: self.drain_limit },
            app_probes: self.app_probes,
        })
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

// As SPIFFE_ENDPOINT_SOCKET names it (Workload Endpoint 4).
fn endpoint(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not of the form unix:///path/to/socket")),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(format!("{text} is not between 0.0 and 1.0")) }
}
