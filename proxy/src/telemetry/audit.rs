//! The audit log's line: one JSON object for what was denied to a peer, and for what an AUDIT policy wants told. Who asked
//! from where for what, what was decided and by which rule.
//!
//! Query strings, headers, bodies and tokens are never in it. Knows not where it is written ([`super::writer`]).

use serde::Serialize;

use crate::telemetry::{
    line::{DryRun, Hex, Shown, cut},
    origin::Origin,
    record::{Direction, Lasted, Record},
};

/// Does it belong into the audit log?
pub(crate) fn is_audited(record: &Record) -> bool {
    record.direction == Direction::Inbound && (record.denied || record.audited_by.is_some())
}

/// The line with its line feed. `suppressed` counts like lines that were left out before it.
pub(crate) fn audit_line(origin: &Origin, record: &Record, lasted: Lasted, suppressed: u64) -> Vec<u8> {
    let (policy, rule) = split(record.policy.as_deref());
    let line = Line {
        time: Shown(humantime::format_rfc3339_micros(lasted.from)),
        kind: "audit",
        decision: if record.denied { "deny" } else { record.decision.unwrap_or("allow") },
        service: &origin.service,
        environment: &origin.environment,
        namespace: &origin.namespace,
        pod: &origin.pod,
        trace_id: record.trace.as_ref().map(|trace| Shown(Hex(trace.trace_id, 32))),
        peer_id: record.peer.as_ref().map(Shown),
        local_id: record.local.as_ref().map(Shown),
        request_principal: record.request_principal.as_deref().map(cut),
        peer_addr: record.peer_address.map(Shown),
        destination: Shown(record.destination),
        sni: record.sni.as_deref().map(cut),
        method: record.method.as_ref().map(|method| cut(method.as_str())),
        host: record.authority.as_deref().map(cut),
        path: record.path.as_deref().map(cut),
        status: record.status,
        refusal: record.refusal,
        policy,
        rule,
        reason: record.reason.as_deref().map(cut),
        audited_by: record.audited_by.as_deref().map(cut),
        dry_run: record.dry_run.as_ref().map(DryRun::of),
        suppressed: (suppressed > 0).then_some(suppressed),
    };
    let mut bytes = Vec::with_capacity(TYPICAL);
    // Plain values into memory: neither can fail.
    if serde_json::to_writer(&mut bytes, &line).is_err() {
        bytes.clear();
    }
    bytes.push(b'\n');
    bytes
}

// `shop/orders rule 2` is policy `shop/orders` and rule 2.
fn split(by: Option<&str>) -> (Option<&str>, Option<u32>) {
    let numbered = by.and_then(|by| by.rsplit_once(" rule "));
    match numbered.map(|(policy, rule)| (policy, rule.parse())) {
        Some((policy, Ok(rule))) => (Some(policy), Some(rule)),
        _ => (by, None),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: Shown<humantime::Rfc3339Timestamp>,
    kind: &'static str,
    decision: &'static str,
    service: &'a str,
    environment: &'a str,
    namespace: &'a str,
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Shown<Hex>>,
    peer_id: Option<Shown<&'a douane_proto::id::WorkloadId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_id: Option<Shown<&'a douane_proto::id::WorkloadId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_addr: Option<Shown<std::net::SocketAddr>>,
    destination: Shown<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audited_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<DryRun<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<u64>,
}

// Bytes. A line with all fields has about 900.
const TYPICAL: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_and_rule_are_told_apart() {
        assert_eq!(split(Some("shop/orders rule 2")), (Some("shop/orders"), Some(2)));
        assert_eq!(split(Some("shop/a rule b")), (Some("shop/a rule b"), None));
        assert_eq!(split(None), (None, None));
    }

    #[test]
    fn what_is_allowed_is_told_only_where_a_policy_wants_it() {
        let mut record = Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
        assert!(!is_audited(&record));
        record.audited_by = Some("shop/watch rule 1".into());
        assert!(is_audited(&record));
        record.direction = Direction::Outbound;
        assert!(!is_audited(&record));
    }
}
