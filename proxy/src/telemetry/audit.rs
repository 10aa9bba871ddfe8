//! The audit log's line: one JSON object for what was denied to a peer, and for what an AUDIT policy wants told. Who asked
//! from where for what, what was decided and by which rule.
//!
//! Query strings, headers, bodies and tokens are never in it. Knows not where it is written ([`super::writer`]).

use crate::telemetry::{
    json::{Object, key},
    line::{cut, dry_run},
    record::{Direction, Lasted, Record},
};

/// Does it belong into the audit log?
pub(crate) fn is_audited(record: &Record) -> bool {
    record.direction == Direction::Inbound && (record.denied || record.audited_by.is_some())
}

/// Writes the line with its line feed. `suppressed` counts like lines that were left out before it.
pub(crate) fn audit_line(out: &mut Vec<u8>, who: &[u8], record: &Record, lasted: Lasted, suppressed: u64) {
    out.reserve(TYPICAL);
    let mut line = Object::begin(out);
    line.time(key!("time"), lasted.from);
    line.word(key!("kind"), "audit");
    line.word(key!("decision"), if record.denied { "deny" } else { record.decision.unwrap_or("allow") });
    line.again(who);
    if let Some(trace) = &record.trace {
        line.trace_id(key!("trace_id"), trace.trace_id);
    }
    match &record.peer {
        Some(peer) => line.id(key!("peer_id"), peer),
        None => line.null(key!("peer_id")),
    }
    if let Some(local) = &record.local {
        line.id(key!("local_id"), local);
    }
    line.maybe(key!("user"), record.user.as_deref());
    if let Some(address) = record.peer_address {
        line.address(key!("peer_addr"), address);
    }
    line.address(key!("destination"), record.destination);
    line.maybe(key!("sni"), record.sni.as_deref().map(cut));
    line.maybe(key!("method"), record.method.as_ref().map(|method| cut(method.as_str())));
    line.maybe(key!("host"), record.authority.as_deref().map(cut));
    line.maybe(key!("path"), record.path.as_deref().map(cut));
    if let Some(status) = record.status {
        line.number(key!("status"), status.into());
    }
    line.maybe_word(key!("refusal"), record.refusal);
    let (policy, rule) = split(record.policy.as_deref());
    line.maybe(key!("policy"), policy);
    if let Some(rule) = rule {
        line.number(key!("rule"), rule.into());
    }
    line.maybe(key!("reason"), record.reason.as_deref().map(cut));
    line.maybe(key!("audited_by"), record.audited_by.as_deref().map(cut));
    if let Some(shadow) = &record.dry_run {
        dry_run(&mut line, shadow);
    }
    if suppressed > 0 {
        line.number(key!("suppressed"), suppressed);
    }
    line.end();
    out.push(b'\n');
}

// `shop/orders rule 2` is policy `shop/orders` and rule 2.
fn split(by: Option<&str>) -> (Option<&str>, Option<u32>) {
    let numbered = by.and_then(|by| by.rsplit_once(" rule "));
    match numbered.map(|(policy, rule)| (policy, rule.parse())) {
        Some((policy, Ok(rule))) => (Some(policy), Some(rule)),
        _ => (by, None),
    }
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
