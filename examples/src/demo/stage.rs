//! Where the attempts take place: a running lab with the shop in it, the collector, and a partner outside.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::{
    demo::{
        forge::Passport,
        logs::{Tail, text},
        passport,
        running::{Running, Said},
        sink::Sink,
    },
    lab::{addresses::GATEWAY_V4, capture::Capture, control_plane, probe, roles, running::Lab},
};

/// The shop's front, as web's own container reaches it.
pub(crate) const CHECKOUT: &str = "http://localhost:8080/checkout";
/// A page of orders.
pub(crate) const ORDERS: &str = "http://orders.shop/orders";
/// The ledger.
pub(crate) const LEDGER: &str = "ledger.shop:7000";
/// A page of the partner outside.
pub(crate) const PARTNER: &str = "http://203.0.113.10:8080/";

/// TEST-NET-3 (RFC 5737): no address that anybody has.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PARTNER_PORT: u16 = 8080;
/// The shop's client programs have limits of their own, below this.
const PROGRAM: Duration = Duration::from_secs(60);

/// The stage.
pub(crate) struct Stage {
    lab: Lab,
    sink: Sink,
    partner: Child,
}

/// What a request got; status 0 when it got no answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u64,
    /// The body, or the error.
    pub(crate) said: String,
}

impl Stage {
    /// Adds what the shop's folder does not hold: an outside host with the partner on it.
    pub(crate) fn set(lab: Lab, sink: Sink) -> anyhow::Result<Self> {
        lab.add_address(OUTSIDE.into()).context("give the bridge an outside address")?;
        let listen = SocketAddr::from((OUTSIDE, PARTNER_PORT)).to_string();
        let partner = lab.gateway_spawn(["shop", "partner", "--listen", &listen])?;
        Ok(Self { lab, sink, partner })
    }

    /// The pod of a Deployment, or of that name.
    pub(crate) fn pod(&self, app: &str) -> anyhow::Result<String> {
        let pod = self.lab.pod(app)?;
        let metadata = &pod.plan().metadata;
        Ok(format!("{}/{}", metadata.namespace, metadata.name))
    }

    /// An IPv4 address and port of the first pod of a Deployment.
    pub(crate) fn port_of(&self, app: &str, port: u16) -> anyhow::Result<String> {
        let address = IpAddr::V4(self.lab.pod(app)?.plan().addresses.v4);
        Ok(SocketAddr::new(address, port).to_string())
    }

    /// Runs a program of the shop in a pod, to its end.
    pub(crate) fn run(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<Said> {
        self.tell(pod, arguments, "")
    }

    /// The same, with something on its standard input.
    pub(crate) fn tell(&self, pod: &str, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let mut child = self.spawn(pod, arguments)?;
        if let Some(mut pipe) = child.stdin.take() {
            // One that does not read it may have closed it.
            let _ = pipe.write_all(input.as_bytes());
        }
        Running::follow(child).finish(PROGRAM)
    }

    /// Starts a program of the shop in a pod.
    pub(crate) fn start(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        Ok(Running::follow(self.spawn(pod, arguments)?))
    }

    /// `shop get` in a pod, once.
    pub(crate) fn get(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<Reply> {
        let line = self.run(pod, &[&["get", "--json"], arguments].concat())?.last()?;
        let status = line.get("status").and_then(Value::as_u64).unwrap_or_default();
        let said = if status == 0 { text(&line, "error") } else { text(&line, "body") };
        Ok(Reply { status, said: said.to_owned() })
    }

    /// What the sidecars of a Deployment log from now on.
    pub(crate) fn logs(&self, app: &str) -> anyhow::Result<Tail> {
        let logs: Vec<PathBuf> = self
            .lab
            .pods()
            .iter()
            .filter(|pod| pod.plan().deployment.as_deref().unwrap_or(&pod.plan().metadata.name) == app)
            .map(|pod| pod.log())
            .collect();
        ensure!(!logs.is_empty(), "no pod of {app}");
        Ok(Tail::of(logs))
    }

    /// A figure of each sidecar's metrics, by pod; one that does not tell it is left out. `name` has its labels with it.
    pub(crate) fn figures(&self, name: &str) -> BTreeMap<String, f64> {
        let meshed = self.lab.pods().into_iter().filter(|pod| pod.plan().injected);
        let told = meshed.filter_map(|pod| {
            let metrics = probe::ask(probe::sidecar(pod.plan().addresses.v4.into()), "/metrics").ok()?;
            Some((pod.plan().metadata.name.clone(), figure(&metrics.body, name)?))
        });
        told.collect()
    }

    /// Has the authority issue a certificate by a join token for `namespace/account`.
    pub(crate) fn issued(&self, identity: &str, lifetime: Duration) -> anyhow::Result<Passport> {
        let state = self.lab.control_plane_dir();
        let mut create = Command::new(std::env::current_exe()?);
        create.args([
            roles::PLAY,
            "douane",
            "ca",
            "token",
            "create",
            "--identity",
            identity,
            "--ttl",
            "1m",
            "--dir",
        ]);
        let created =
            create.arg(state).stdin(Stdio::null()).output().context("run douane ca token create")?;
        let token = String::from_utf8(created.stdout)?;
        if !created.status.success() || token.trim().is_empty() {
            bail!("douane ca token create: {}", String::from_utf8_lossy(&created.stderr).trim());
        }
        let authority = SocketAddr::from((GATEWAY_V4, control_plane::PORT));
        passport::issued(authority, state.join("bundle.pem"), token.trim(), lifetime)
    }

    /// What the control plane logs from now on.
    pub(crate) fn control_plane_log(&self) -> Tail {
        Tail::of([self.lab.control_plane_log().to_owned()])
    }

    /// The folder of YAML.
    pub(crate) fn resources(&self) -> &Path {
        self.lab.resources_dir()
    }

    /// The collector.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Records what crosses the bridge.
    pub(crate) fn capture(&self) -> anyhow::Result<Capture> {
        self.lab.capture()
    }

    /// Kills the control plane.
    pub(crate) fn kill_control_plane(&self) {
        self.lab.kill_control_plane();
    }

    /// Starts it again.
    pub(crate) fn start_control_plane(&self) -> anyhow::Result<()> {
        self.lab.start_control_plane()
    }

    fn spawn(&self, pod: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        self.lab.spawn(pod, [&["shop"], arguments].concat())
    }
}

/// A figure of Prometheus' text form.
fn figure(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.partner.kill();
        let _ = self.partner.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let metrics =
            "# TYPE a gauge\na_total{result=\"failed\"} 1\na_total{result=\"succeeded\"} 3\na 7.5\n";

        assert_eq!(figure(metrics, "a_total{result=\"succeeded\"}"), Some(3.0));
        assert_eq!(figure(metrics, "a"), Some(7.5));
        assert_eq!(figure(metrics, "b"), None);
    }
}
