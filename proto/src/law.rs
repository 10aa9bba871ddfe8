//! Which laws govern a workload: of all that operators wrote, those that select it, as its sidecar receives them.
//!
//! Pure; the control plane and the operator's commands call the same function. Knows neither folders nor Kubernetes,
//! and not how a law is applied ([`crate::policy`], [`crate::authentication`], [`crate::mtls`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    mtls::{MtlsMode, MtlsModes},
    policy::Provider,
    resource::{Kind, Location, PeerAuthentication, Resource},
    wire,
};

/// What the mesh configuration says of laws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LawSettings {
    /// Laws of this namespace select pods of every namespace.
    pub root_namespace: String,
    /// Where no `PeerAuthentication` says otherwise.
    pub mtls: MtlsMode,
    /// Whom CUSTOM policies may name.
    pub providers: Vec<Provider>,
}

/// The law of one workload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Governing {
    /// As its sidecar receives it.
    pub policies: wire::PolicySet,
    /// What its sidecar demands of connections.
    pub mtls: MtlsModes,
    /// What works otherwise than its author may expect.
    pub warnings: Vec<LawWarning>,
}

/// What works otherwise than its author may expect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LawWarning {
    /// Where it was written; `None`: in the mesh configuration.
    pub location: Option<Location>,
    /// `Kind namespace/name`.
    pub subject: String,
    /// What it does.
    pub what: String,
}

impl fmt::Display for LawWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}: {}", self.subject, self.what)
    }
}

/// The law of a workload of `namespace` with `labels`, of all that `resources` say. Laws of other namespaces than its own
/// and the root namespace may be left out of `resources`.
#[must_use]
pub fn govern<'a>(
    resources: impl IntoIterator<Item = &'a Resource>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    settings: &LawSettings,
) -> Governing {
    let mut policies: Vec<(&Resource, &wire::Policy)> = Vec::new();
    let mut authentications: Vec<(&Resource, wire::RequestAuthentication)> = Vec::new();
    let mut peers: Vec<(&Resource, &PeerAuthentication)> = Vec::new();
    let mut warnings = Vec::new();
    for resource in resources {
        let root = &settings.root_namespace;
        match &resource.kind {
            Kind::AuthorizationPolicy(law) if law.attachment.scope.selects(namespace, labels, root) => {
                let notes = law.notes.iter();
                warnings.extend(notes.map(|note| warning(resource, note.line, &note.value)));
                if law.attachment.targets.is_empty() {
                    policies.push((resource, &law.policy));
                }
            }
            Kind::RequestAuthentication(law) if law.attachment.scope.selects(namespace, labels, root) => {
                let notes = law.notes.iter();
                warnings.extend(notes.map(|note| warning(resource, note.line, &note.value)));
                if law.attachment.targets.is_empty() {
                    authentications.push((resource, law.to_wire(&resource.metadata)));
                }
            }
            Kind::PeerAuthentication(law) if law.scope.selects(namespace, labels, root) => {
                peers.push((resource, law));
            }
            _ => {}
        }
    }
    policies.sort_by_key(|(resource, _)| key(resource));
    authentications.sort_by_key(|(resource, _)| key(resource));
    let providers = providers(&policies, settings, &mut warnings);
    Governing {
        policies: wire::PolicySet {
            policies: policies.into_iter().map(|(_, policy)| policy.clone()).collect(),
            authentications: authentications.into_iter().map(|(_, message)| message).collect(),
            providers,
        },
        mtls: modes(&peers, settings, &mut warnings),
        warnings,
    }
}

fn key(resource: &Resource) -> (&str, &str) {
    (&resource.metadata.namespace, &resource.metadata.name)
}

fn warning(resource: &Resource, line: u32, what: &str) -> LawWarning {
    LawWarning {
        location: Some(Location { line, ..resource.location.clone() }),
        subject: format!("{} {}", resource.kind.name(), resource.metadata.key()),
        what: what.to_owned(),
    }
}

// Those that the policies name and the mesh defines.
fn providers(
    policies: &[(&Resource, &wire::Policy)],
    settings: &LawSettings,
    warnings: &mut Vec<LawWarning>,
) -> Vec<wire::Provider> {
    let defined: BTreeMap<&str, &Provider> =
        settings.providers.iter().map(|provider| (&*provider.name, provider)).collect();
    let custom = policies.iter().filter(|(_, policy)| policy.action == i32::from(wire::Action::Custom));
    let mut named = BTreeSet::new();
    for (resource, policy) in custom {
        if defined.contains_key(&*policy.provider) {
            named.insert(&*policy.provider);
        } else {
            let what = format!(
                "the mesh configuration defines no provider {:?}: what would ask it is denied",
                policy.provider
            );
            warnings.push(warning(resource, resource.location.line, &what));
        }
    }
    named.into_iter().filter_map(|name| defined.get(name)).map(|provider| provider.to_wire()).collect()
}

/// How far a `PeerAuthentication` reaches; the narrower goes before the wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Mesh,
    Namespace,
    Workload,
}

fn modes(
    peers: &[(&Resource, &PeerAuthentication)],
    settings: &LawSettings,
    warnings: &mut Vec<LawWarning>,
) -> MtlsModes {
    // Of several with one reach, the oldest; of equally old ones, the first by name.
    let mut chosen: BTreeMap<Reach, (&Resource, &PeerAuthentication)> = BTreeMap::new();
    for (resource, law) in peers {
        let is_root = law.scope.namespace == settings.root_namespace;
        let reach = match (is_root, law.scope.selector.is_empty()) {
            (true, true) => Reach::Mesh,
            (false, true) => Reach::Namespace,
            (false, false) => Reach::Workload,
            (true, false) => {
                let what = "a selector in the root namespace selects nothing: the object is ignored";
                warnings.push(warning(resource, resource.location.line, what));
                continue;
            }
        };
        let age = |resource: &Resource| (resource.metadata.created, resource.metadata.name.clone());
        let is_first = chosen.get(&reach).is_none_or(|(known, _)| age(resource) < age(known));
        if is_first {
            chosen.insert(reach, (resource, law));
        }
    }
    let said = chosen.values().rev().find_map(|(resource, law)| Some((*resource, law.line, law.mode?)));
    let otherwise = said.map_or(settings.mtls, |(_, _, mode)| mode);
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

#[cfg(test)]
mod tests;
