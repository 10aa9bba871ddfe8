//! A request's records out of access logs, for when no sidecar remembers it any more.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};
use douane_proto::id::WorkloadId;
use serde_json::Value;

use crate::traffic::{
    seen::Seen,
    view::{End, Kind, Names},
};

/// A line has about a KiB; texts in it are cut.
const MAX_LINE_BYTES: u64 = 256 * 1024;
/// Of one trace.
const MOST_RECORDS: usize = 2000;

/// The records of this trace, span, request id or address. Lines that are no access records are passed over.
pub(super) fn records(log: &Path, id: &str) -> Result<Vec<Seen>> {
    let reading = || format!("read {}", log.display());
    let mut lines = BufReader::new(File::open(log).with_context(reading)?);
    let mut found = Vec::new();
    let mut line = Vec::new();
    while found.len() < MOST_RECORDS {
        line.clear();
        if lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).with_context(reading)? == 0 {
            break;
        }
        // Cheaper than to read each line of a large log as JSON.
        if !line.windows(id.len()).any(|window| window == id.as_bytes()) {
            continue;
        }
        let record = serde_json::from_slice(&line).ok().and_then(|line: Value| record(&line));
        found.extend(record.filter(|record| is_it(record, id)));
    }
    Ok(found)
}

fn is_it(record: &Seen, id: &str) -> bool {
    let is_at = |end: &String| {
        end == id
            || end.parse::<SocketAddr>().is_ok_and(|end| id.parse().is_ok_and(|ip: IpAddr| ip == end.ip()))
    };
    [&record.trace_id, &record.span_id, &record.request_id].into_iter().any(|own| own == id)
        || [&record.destination, &record.peer_address].into_iter().any(is_at)
}

fn record(line: &Value) -> Option<Seen> {
    if line.get("kind")? != "access" {
        return None;
    }
    let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| line.get(key).and_then(Value::as_u64);
    let status = |key: &str| number(key).and_then(|status| u32::try_from(status).ok());
    let id = |key: &str| text(key).parse::<WorkloadId>().ok().map(|id| End::workload(&id, &Names::new()));
    let nameless = |name: String, kind| End { name, kind, identity: None };
    let (namespace, service) = (text("namespace"), text("service"));
    // What the sidecar calls itself is better than its account.
    let own = id("local_id").unwrap_or_else(|| nameless(String::new(), Kind::Workload));
    let own = End { name: format!("{namespace}/{service}"), ..own };
    let to_service = Some(text("to_service")).filter(|service| !service.is_empty());
    let other = id("peer_id").unwrap_or_else(|| match to_service {
        Some(service) => nameless(service, Kind::Service),
        None => nameless("unknown".to_owned(), Kind::Unknown),
    });
    let is_source = text("direction") == "outbound";
    let (from, to) = if is_source { (own, other) } else { (other, own) };
    let tls = line.get("tls").filter(|tls| tls.is_object());
    let of_tls = |key: &str| tls.and_then(|tls| tls.get(key)).and_then(Value::as_str);
    let time = humantime::parse_rfc3339(&text("timestamp")).ok()?;
    let time_us = u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
    let refusal = text("refusal");
    Some(Seen {
        end: if is_source { "source" } else { "destination" }.to_owned(),
        told_by: format!("{namespace}/{}", text("pod")),
        from: Some(from),
        to: Some(to),
        time_us,
        duration_ms: line.get("duration_ms").and_then(Value::as_f64).unwrap_or_default(),
        trace_id: text("trace_id"),
        span_id: text("span_id"),
        parent_id: String::new(),
        request_id: text("request_id"),
        protocol: text("protocol"),
        method: text("method"),
        path: text("path"),
        status: status("status"),
        grpc_status: status("grpc_status"),
        peer_address: text("peer_addr"),
        destination: text("destination"),
        service: text("to_service"),
        tls: of_tls("version")
            .zip(of_tls("group"))
            .map(|(one, other)| format!("{one} {other}"))
            .unwrap_or_default(),
        denied: text("decision") == "deny",
        decision: text("decision"),
        policy: text("policy"),
        place: String::new(),
        reason: text("reason"),
        refusal,
        hint: text("hint"),
        bytes_in: number("bytes_in").unwrap_or_default(),
        bytes_out: number("bytes_out").unwrap_or_default(),
    })
}
