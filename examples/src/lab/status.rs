//! What a running lab writes down about its pods, and `lab status`, which adds what their sidecars say now.

use std::{fs, net::IpAddr, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::lab::{exec, probe, state};

/// The record's file in a lab's folder.
pub const RECORD: &str = "lab.json";

/// A running lab, as others find it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The daemon's process number inside the lab.
    pub daemon: u32,
    /// Its pods.
    pub pods: Vec<PodRecord>,
}

/// A pod, as others find it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its Deployment.
    pub deployment: Option<String>,
    /// Its service account.
    pub service_account: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Has it a sidecar?
    pub meshed: bool,
    /// Has everything in it been started?
    pub ready: bool,
    /// Its thread's number inside the lab.
    pub thread: i32,
    /// Its most telling log.
    pub log: PathBuf,
    /// What runs in it.
    pub containers: Vec<ContainerRecord>,
}

/// A container, as `lab exec` needs it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// What confines a program as this container is.
    pub confinement: Vec<String>,
    /// Its log.
    pub log: PathBuf,
}

/// The names that a pod answers to.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// Its Deployment.
    pub deployment: Option<&'a str>,
}

impl PodRecord {
    /// Its names.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names { namespace: &self.namespace, pod: &self.pod, deployment: self.deployment.as_deref() }
    }
}

/// Which pod is meant by `name`, `namespace/name`, or the same with a Deployment's name (its first pod)?
///
/// # Errors
/// None, or several namespaces have one.
pub fn choose(name: &str, pods: &[Names<'_>]) -> Result<usize> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    let there = |it: &Names<'_>| namespace.is_none_or(|namespace| namespace == it.namespace);
    let by = |matches: &dyn Fn(&Names<'_>) -> bool| -> Vec<usize> {
        pods.iter().enumerate().filter(|(_, it)| there(it) && matches(it)).map(|(index, _)| index).collect()
    };
    let mut found = by(&|it| it.pod == name);
    if found.is_empty() {
        found = by(&|it| it.deployment == Some(name));
    }
    let mut namespaces: Vec<_> = found.iter().filter_map(|it| Some(pods.get(*it)?.namespace)).collect();
    namespaces.dedup();
    match (found.first(), namespaces.as_slice()) {
        (Some(first), [_]) => Ok(*first),
        (Some(_), several) => {
            bail!("{name} is in several namespaces ({}); say NAMESPACE/{name}", several.join(", "))
        }
        (None, _) => {
            let known: Vec<_> = pods.iter().map(|it| format!("{}/{}", it.namespace, it.pod)).collect();
            bail!("no pod is called {name}; there are: {}", known.join(", "))
        }
    }
}

/// One line of `lab status`.
#[derive(Debug, Serialize)]
pub struct PodStatus {
    namespace: String,
    pod: String,
    addresses: Vec<IpAddr>,
    spiffe_id: String,
    meshed: bool,
    certificate_expires: Option<String>,
    ready: bool,
    log: PathBuf,
}

/// How `lab status` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// An array for programs.
    Json,
}

/// Prints what is known of a running lab.
///
/// # Errors
/// No lab runs, or it belongs to somebody else.
pub fn main(lab: Option<u32>, format: Format) -> Result<ExitCode> {
    let (id, folder) = state::find(lab)?;
    let record = read(&folder)?;
    // The sidecars answer in the lab's network only.
    exec::enter_bridge(id, &record)?;
    let pods: Vec<_> = record.pods.into_iter().map(ask).collect();
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&pods)?),
        Format::Table => print!("{}", table(&pods)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The record of a lab.
///
/// # Errors
/// It is still starting.
pub fn read(folder: &std::path::Path) -> Result<Record> {
    let record = fs::read(folder.join(RECORD)).context("the lab is still starting: it has no pods yet")?;
    serde_json::from_slice(&record).context("read the lab's record")
}

/// The table for people.
#[must_use]
pub fn table(pods: &[PodStatus]) -> String {
    let header = ["POD", "IPV4", "IPV6", "READY", "CERTIFICATE", "SPIFFE ID"].map(str::to_owned);
    let mut rows = vec![header];
    for pod in pods {
        let address = |index| pod.addresses.get(index).map(ToString::to_string).unwrap_or_default();
        let certificate = match &pod.certificate_expires {
            Some(time) => time.clone(),
            None if pod.meshed => "unknown".to_owned(),
            None => "-".to_owned(),
        };
        rows.push([
            format!("{}/{}", pod.namespace, pod.pod),
            address(0),
            address(1),
            if pod.ready { "yes" } else { "no" }.to_owned(),
            certificate,
            if pod.meshed { pod.spiffe_id.clone() } else { "- (no sidecar)".to_owned() },
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |row: &[String; 6]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// What a pod says of itself now. Must be asked from the bridge's network.
#[must_use]
pub fn ask(pod: PodRecord) -> PodStatus {
    let address = pod.addresses.first().copied();
    let answer = |path| address.filter(|_| pod.meshed).and_then(|it| probe::ask(it, path).ok());
    let sidecar_ready = !pod.meshed || answer("/readyz").is_some_and(|it| it.status == 200);
    let expiry = answer("/metrics").and_then(|it| probe::certificate_expiry(&it.body));
    PodStatus {
        spiffe_id: format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.service_account),
        certificate_expires: expiry.and_then(rfc3339),
        ready: pod.ready && sidecar_ready,
        namespace: pod.namespace,
        pod: pod.pod,
        addresses: pod.addresses,
        meshed: pod.meshed,
        log: pod.log,
    }
}

fn rfc3339(seconds: f64) -> Option<String> {
    let since = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    let time = SystemTime::UNIX_EPOCH.checked_add(since)?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: [Names<'_>; 4] = [
        Names { namespace: "shop", pod: "orders-1", deployment: Some("orders") },
        Names { namespace: "shop", pod: "orders-2", deployment: Some("orders") },
        Names { namespace: "shop", pod: "web", deployment: None },
        Names { namespace: "other", pod: "web", deployment: None },
    ];

    #[test]
    fn a_deployment_means_its_first_pod() {
        assert_eq!(choose("orders", &PODS).unwrap(), 0);
        assert_eq!(choose("shop/orders-2", &PODS).unwrap(), 1);
    }

    #[test]
    fn a_name_in_two_namespaces_must_be_said_in_full() {
        assert!(choose("web", &PODS).unwrap_err().to_string().contains("say NAMESPACE/web"));
        assert_eq!(choose("other/web", &PODS).unwrap(), 3);
    }

    #[test]
    fn an_unknown_pod_names_those_that_exist() {
        assert!(choose("nobody", &PODS).unwrap_err().to_string().contains("shop/orders-1"));
    }
}
