//! Which kinds of the Kubernetes API make up the mesh, and by which names and versions they are asked for.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind that is watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) group: &'static str,
    /// The one that is asked for first stands first; older installations of Istio serve older ones only.
    pub(crate) versions: &'static [&'static str],
    pub(crate) role: Role,
    /// Which of them are meant, as a label selector; all where there is none.
    pub(crate) labelled: Option<&'static str>,
}

/// What a kind is to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Every Kubernetes has it.
    Core,
    /// Istio's, of what lies outside; absent where nobody installed it.
    Entry,
    /// Istio's, and it forbids something.
    Law,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

/// All of them.
pub(crate) const KINDS: &[Watched] = &[
    core("Namespace", "namespaces"),
    core("ServiceAccount", "serviceaccounts"),
    core("Pod", "pods"),
    core("Service", "services"),
    SLICES,
    entry("ServiceEntry", "serviceentries"),
    entry("WorkloadEntry", "workloadentries"),
    law("AuthorizationPolicy", "authorizationpolicies"),
    law("PeerAuthentication", "peerauthentications"),
    law("RequestAuthentication", "requestauthentications"),
];

/// Those that Kubernetes makes of pods say what the pods say, and are many.
const SLICES: Watched = Watched {
    kind: "EndpointSlice",
    plural: "endpointslices",
    group: "discovery.k8s.io",
    versions: &["v1"],
    role: Role::Core,
    labelled: Some("endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io"),
};

const fn core(kind: &'static str, plural: &'static str) -> Watched {
    Watched { kind, plural, group: "", versions: &["v1"], role: Role::Core, labelled: None }
}

const fn entry(kind: &'static str, plural: &'static str) -> Watched {
    let versions = &["v1", "v1beta1", "v1alpha3"];
    Watched { kind, plural, group: NETWORKING, versions, role: Role::Entry, labelled: None }
}

const fn law(kind: &'static str, plural: &'static str) -> Watched {
    let versions = &["v1", "v1beta1"];
    Watched { kind, plural, group: SECURITY, versions, role: Role::Law, labelled: None }
}

impl Watched {
    /// Its name in the API, in this version.
    pub(crate) fn resource(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// May it be absent? Then it is looked for again.
    pub(crate) fn may_be_absent(&self) -> bool {
        self.role != Role::Core
    }

    /// `pods`, `authorizationpolicies.security.istio.io`: as `kubectl` calls it.
    pub(crate) fn name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}
