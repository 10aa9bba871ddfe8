//! An object that somebody wrote: what it is, what it is called, and where it stands.

use super::{
    authorization::AuthorizationPolicy,
    endpoints::EndpointSlice,
    entry::WorkloadEntry,
    error::Location,
    external::ServiceEntry,
    metadata::Metadata,
    peer::PeerAuthentication,
    service::Service,
    tokens::RequestAuthentication,
    workload::{Deployment, Pod},
};

/// An object that somebody wrote, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The first line of its document.
    pub location: Location,
    /// What names and describes it.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `v1` `Namespace`.
    Namespace,
    /// `v1` `ServiceAccount`.
    ServiceAccount,
    /// `v1` `Pod`.
    Pod(Box<Pod>),
    /// `apps/v1` `Deployment`.
    Deployment(Box<Deployment>),
    /// `v1` `Service`.
    Service(Service),
    /// `discovery.k8s.io/v1` `EndpointSlice`.
    EndpointSlice(EndpointSlice),
    /// `networking.istio.io` `ServiceEntry`.
    ServiceEntry(ServiceEntry),
    /// `networking.istio.io` `WorkloadEntry`.
    WorkloadEntry(WorkloadEntry),
    /// `security.istio.io` `AuthorizationPolicy`.
    AuthorizationPolicy(AuthorizationPolicy),
    /// `security.istio.io` `PeerAuthentication`.
    PeerAuthentication(PeerAuthentication),
    /// `security.istio.io` `RequestAuthentication`.
    RequestAuthentication(RequestAuthentication),
}

impl Kind {
    /// Its name, as YAML has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod(_) => "Pod",
            Self::Deployment(_) => "Deployment",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::ServiceEntry(_) => "ServiceEntry",
            Self::WorkloadEntry(_) => "WorkloadEntry",
            Self::AuthorizationPolicy(_) => "AuthorizationPolicy",
            Self::PeerAuthentication(_) => "PeerAuthentication",
            Self::RequestAuthentication(_) => "RequestAuthentication",
        }
    }

    /// Do both say the same, wherever they were written?
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AuthorizationPolicy(one), Self::AuthorizationPolicy(other)) => {
                one.attachment.agrees(&other.attachment) && one.policy == other.policy
            }
            (Self::PeerAuthentication(one), Self::PeerAuthentication(other)) => {
                one.scope == other.scope && one.mode == other.mode && one.ports == other.ports
            }
            (Self::RequestAuthentication(one), Self::RequestAuthentication(other)) => {
                let rules = |law: &RequestAuthentication| -> Vec<_> {
                    law.rules.iter().map(|rule| (rule.rule.clone(), rule.keys.clone())).collect()
                };
                one.attachment.agrees(&other.attachment)
                    && rules(one) == rules(other)
                    && one.unreadable == other.unreadable
            }
            _ => self == other,
        }
    }

    // Beside its spec there stands what cannot be read, such as a field of the spec in the wrong place.
    pub(super) fn doubt(&mut self, unreadable: Vec<String>) {
        match self {
            Self::AuthorizationPolicy(law) => law.policy.unreadable.extend(unreadable),
            Self::RequestAuthentication(law) => law.unreadable.extend(unreadable),
            Self::PeerAuthentication(law) => *law = PeerAuthentication::strict(law.scope.clone()),
            _ => {}
        }
    }
}
