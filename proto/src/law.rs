//! Which laws govern a workload: of all policies that operators wrote, those that select it, as its sidecar receives them.
//!
//! Pure; the control plane and the operator's commands call the same function. Knows neither folders nor Kubernetes,
//! and not how a law is applied ([`crate::policy`], [`crate::authentication`], [`crate::mtls`]).

use std::collections::BTreeMap;

use crate::{
    mtls::{MtlsMode, MtlsModes},
    policy::Provider,
    resource::{Kind, Resource},
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
}

/// The law of a workload of `namespace` with `labels`, of all that `resources` say.
#[must_use]
pub fn govern<'a>(
    resources: impl IntoIterator<Item = &'a Resource>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    settings: &LawSettings,
) -> Governing {
    let mut governing = Governing::default();
    for resource in resources {
        if let Kind::AuthorizationPolicy(law) = &resource.kind
            && law.scope.selects(namespace, labels, &settings.root_namespace)
        {
            governing.policies.policies.push(law.policy.to_wire());
        }
    }
    governing
}
