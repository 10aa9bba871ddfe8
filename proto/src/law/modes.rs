//! Whom a workload lets connect, of all `PeerAuthentication`s that select it: a port goes before the workload, before its
//! namespace, before the mesh.

use std::collections::BTreeMap;

use super::warning::{LawWarning, warning};
use crate::{
    mtls::{MtlsMode, MtlsModes},
    resource::{PeerAuthentication, Resource},
};

/// How far a `PeerAuthentication` reaches; the narrower goes before the wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Mesh,
    Namespace,
    Workload,
}

/// The modes of a workload that all of `peers` select; `unsaid` where none of them says one.
pub(super) fn modes(
    peers: &[(&Resource, &PeerAuthentication)],
    root_namespace: &str,
    unsaid: MtlsMode,
    warnings: &mut Vec<LawWarning>,
) -> MtlsModes {
    // Of several with one reach, the oldest; of equally old ones, the first by name.
    let mut chosen: BTreeMap<Reach, (&Resource, &PeerAuthentication)> = BTreeMap::new();
    for (resource, law) in peers {
        let is_root = law.scope.namespace == root_namespace;
        let reach = match (is_root, law.scope.selector.is_empty()) {
            (true, true) => Reach::Mesh,
            (false, true) => Reach::Namespace,
            (false, false) => Reach::Workload,
            // As in Istio; its author is told elsewhere.
            (true, false) => continue,
        };
        let age = |resource: &Resource| (resource.metadata.created, resource.metadata.name.clone());
        let is_first = chosen.get(&reach).is_none_or(|(known, _)| age(resource) < age(known));
        if is_first {
            chosen.insert(reach, (resource, law));
        }
    }
    let said = chosen.values().rev().find_map(|(resource, law)| Some((*resource, law.line, law.mode?)));
    let otherwise = said.map_or(unsaid, |(_, _, mode)| mode);
    warnings.extend(weakness(otherwise, said.map(|(resource, line, _)| (resource, line)), None));
    let mut ports = BTreeMap::new();
    if let Some((resource, law)) = chosen.get(&Reach::Workload) {
        for (port, mode) in &law.ports {
            ports.insert(*port, mode.unwrap_or(otherwise));
            warnings.extend(mode.and_then(|mode| weakness(mode, Some((*resource, law.line)), Some(*port))));
        }
    }
    MtlsModes { otherwise, ports }
}

fn weakness(mode: MtlsMode, by: Option<(&Resource, u32)>, port: Option<u16>) -> Option<LawWarning> {
    let what = match mode {
        MtlsMode::Strict => return None,
        MtlsMode::Permissive => {
            "PERMISSIVE takes plaintext; such a peer has no identity, so that no principal matches it and each \
             notPrincipals does: a DENY of notPrincipals [\"*\"] refuses it where it should not be"
        }
        MtlsMode::Disable => "DISABLE takes plaintext only: no peer has an identity",
    };
    let at = port.map(|port| format!("port {port}: ")).unwrap_or_default();
    Some(match by {
        Some((resource, line)) => warning(resource, line, &format!("{at}{what}")),
        None => {
            LawWarning { location: None, subject: "mesh configuration".to_owned(), what: what.to_owned() }
        }
    })
}
