//! Which laws govern a workload: of all that operators wrote, those that select it, as its sidecar receives them.
//!
//! Pure; the control plane and the operator's commands call the same function. Knows neither folders nor Kubernetes,
//! and not how a law is applied ([`crate::policy`], [`crate::authentication`], [`crate::mtls`]).

mod modes;
mod settings;
#[cfg(test)]
mod tests;
mod warning;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    mtls::MtlsModes,
    policy::Provider,
    resource::{Kind, PeerAuthentication, Resource},
    wire,
};
use modes::modes;

pub use settings::LawSettings;
pub use warning::{LawWarning, of_one};

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
                warnings.extend(of_one(resource, settings));
                if law.attachment.targets.is_empty() {
                    policies.push((resource, &law.policy));
                }
            }
            Kind::RequestAuthentication(law) if law.attachment.scope.selects(namespace, labels, root) => {
                warnings.extend(of_one(resource, settings));
                if law.attachment.targets.is_empty() {
                    authentications.push((resource, law.to_wire(&resource.metadata)));
                }
            }
            Kind::PeerAuthentication(law) if law.scope.selects(namespace, labels, root) => {
                warnings.extend(of_one(resource, settings));
                peers.push((resource, law));
            }
            _ => {}
        }
    }
    policies.sort_by_key(|(resource, _)| key(resource));
    authentications.sort_by_key(|(resource, _)| key(resource));
    let providers = providers(&policies, settings);
    Governing {
        policies: wire::PolicySet {
            policies: policies.into_iter().map(|(_, policy)| policy.clone()).collect(),
            authentications: authentications.into_iter().map(|(_, message)| message).collect(),
            providers,
        },
        mtls: modes(&peers, &settings.root_namespace, settings.mtls, &mut warnings),
        warnings,
    }
}

fn key(resource: &Resource) -> (&str, &str) {
    (&resource.metadata.namespace, &resource.metadata.name)
}

// Those that the policies name and the mesh defines.
fn providers(policies: &[(&Resource, &wire::Policy)], settings: &LawSettings) -> Vec<wire::Provider> {
    let custom = policies.iter().filter(|(_, policy)| policy.action == i32::from(wire::Action::Custom));
    let named: BTreeSet<&str> = custom.map(|(_, policy)| &*policy.provider).collect();
    let defined = settings.providers.iter().filter(|provider| named.contains(&*provider.name));
    defined.map(Provider::to_wire).collect()
}
