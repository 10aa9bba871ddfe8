//! `lab status`: what a running lab has written down about its pods, and what their sidecars say now.

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Result;
use serde::Serialize;

use crate::lab::{
    exec, probe,
    record::{self, PodRecord},
    state,
};

/// One line of `lab status`.
#[derive(Debug, Serialize)]
pub struct PodStatus {
    namespace: String,
    pod: String,
    addresses: Vec<IpAddr>,
    /// None without a sidecar: nobody proves who it is.
    spiffe_id: Option<String>,
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
    let record = record::read(&folder)?;
    // The sidecars answer in the lab's network only.
    exec::enter_bridge(id, &record)?;
    let pods: Vec<_> = record.pods.into_iter().map(ask).collect();
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&pods)?),
        Format::Table => print!("{}", table(&pods)),
    }
    Ok(ExitCode::SUCCESS)
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
            pod.spiffe_id.clone().unwrap_or_else(|| "- (no sidecar)".to_owned()),
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
    let answer =
        |path| address.filter(|_| pod.meshed).and_then(|it| probe::ask(probe::sidecar(it), path).ok());
    let sidecar_ready = !pod.meshed || answer("/readyz").is_some_and(|it| it.status == 200);
    let expiry = answer("/metrics").and_then(|it| probe::certificate_expiry(&it.body));
    let spiffe_id = format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.service_account);
    PodStatus {
        spiffe_id: pod.meshed.then_some(spiffe_id),
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
