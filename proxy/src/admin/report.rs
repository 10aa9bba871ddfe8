//! What the live values look like to an operator, as JSON. Keys are never among it.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use douane_proto::{
    mesh::Workload,
    snapshot::{Found, Question, Snapshot},
    svid::Identity,
};
use serde_json::{Value, json};

/// Who we are and whom we trust; without keys.
pub(super) fn certificates(identity: &Identity) -> Value {
    let leaf = &identity.svid.leaf;
    let bundle = &identity.bundle;
    json!({
        "spiffe_id": leaf.id.to_string(),
        "generation": identity.generation,
        "not_before": time(leaf.not_before),
        "not_after": time(leaf.not_after),
        "chain": identity.svid.chain.iter().map(|der| hex(der)).collect::<Vec<_>>(),
        "bundle": {
            "trust_domain": bundle.trust_domain.to_string(),
            "epoch": bundle.epoch,
            "sequence": bundle.sequence,
            "roots": bundle.roots.iter().map(|der| hex(der)).collect::<Vec<_>>(),
        },
    })
}

/// What we know of the mesh.
pub(super) fn snapshot(snapshot: &Snapshot) -> Value {
    let answers = snapshot.answers.iter().map(|(question, found)| {
        let asked = match question {
            Question::Address(address) => address.to_string(),
            Question::Host(host) => host.clone(),
        };
        (asked, answer(found))
    });
    json!({
        "epoch": snapshot.epoch,
        "sequence": snapshot.sequence,
        "mesh": {
            "trust_domain": snapshot.mesh.trust_domain.to_string(),
            "root_namespace": snapshot.mesh.root_namespace,
            "outbound": format!("{:?}", snapshot.mesh.outbound),
            "path_normalization": format!("{:?}", snapshot.mesh.path_normalization),
        },
        "own": workload(&snapshot.own),
        "policies": {
            "deny": snapshot.policies.denying().collect::<Vec<_>>(),
            "allow": snapshot.policies.allowing().collect::<Vec<_>>(),
        },
        "complaints": snapshot.policies.complaints(),
        "answers": answers.collect::<serde_json::Map<_, _>>(),
    })
}

fn answer(found: &Found) -> Value {
    match found {
        Found::Unknown => json!("unknown"),
        Found::Workload(found) => json!({ "workload": workload(found) }),
        Found::Service(service) => json!({
            "service": format!("{}/{}", service.namespace, service.name),
            "hosts": service.hosts,
            "addresses": service.addresses,
            "endpoints": service.endpoints.iter().map(|end| workload(&end.workload)).collect::<Vec<_>>(),
        }),
        Found::External(external) => json!({
            "external": format!("{}/{}", external.namespace, external.name),
            "hosts": external.hosts,
            "addresses": external.addresses,
        }),
    }
}

fn workload(workload: &Arc<Workload>) -> Value {
    json!({
        "pod": workload.key(),
        "spiffe_id": workload.id.to_string(),
        "addresses": workload.addresses,
        "dialect": format!("{:?}", workload.dialect),
        "ready": workload.ready,
    })
}

// A certificate's times end with the year 9999, as those do that can be written so.
fn time(seconds: i64) -> String {
    let since = u64::try_from(seconds).ok().filter(|it| *it < YEAR_10000).map(Duration::from_secs);
    let time = since.and_then(|since| UNIX_EPOCH.checked_add(since));
    time.map_or_else(|| seconds.to_string(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

fn hex(der: &[u8]) -> String {
    use std::fmt::Write as _;
    der.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// Seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable_and_no_number_is_too_great() {
        assert_eq!(time(1_795_363_815), "2026-11-22T16:10:15Z");
        assert_eq!(time(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
        assert_eq!(time(-1), "-1");
    }
}
