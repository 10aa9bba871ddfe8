//! What the live values look like to an operator, as JSON. Keys are never among it.

use std::sync::Arc;

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
        "not_before": leaf.not_before,
        "not_after": leaf.not_after,
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
        "mesh": format!("{:?}", snapshot.mesh),
        "own": workload(&snapshot.own),
        "policies": format!("{:?}", snapshot.policies),
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

fn hex(der: &[u8]) -> String {
    use std::fmt::Write as _;
    der.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
