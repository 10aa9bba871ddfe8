//! The label sets of [`super::metrics`]: fixed words, names that the control plane gave, and identities that were proven.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use douane_proto::{id::WorkloadId, policy::Shadow};
use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use crate::telemetry::{
    grpc,
    record::{Direction, Record, policy_and_rule},
};

/// Of what is past the cap of a metric.
pub(super) const OTHER: &str = "other";

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) http_request_method: &'static str,
    pub(super) http_response_status_code: Option<u16>,
    pub(super) error_type: Option<&'static str>,
    pub(super) network_protocol_version: &'static str,
    pub(super) tls: &'static str,
    #[prometheus(flatten)]
    pub(super) peer: Peer,
    pub(super) service: Option<Arc<str>>,
}

/// The proven other end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    Proven(WorkloadId),
    Unknown,
    Other,
}

/// The namespace of the proven other end: all that counts of a peer here, held without a copy of its text.
#[derive(Debug, Clone)]
pub(super) struct Namespace(Peer);

/// Which way something crosses the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Way {
    pub(super) direction: &'static str,
}

/// Bytes of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Flow {
    pub(super) direction: &'static str,
    pub(super) flow: &'static str,
}

/// A decision, the policy and rule that made it, and from where the one came whom it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Decision {
    pub(super) decision: &'static str,
    pub(super) policy: Option<Arc<str>>,
    #[prometheus(flatten)]
    pub(super) of: Namespace,
}

/// What a policy in a dry run would have decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DryRun {
    pub(super) would: &'static str,
    pub(super) policy: String,
}

/// A gRPC call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Call {
    pub(super) rpc_system_name: &'static str,
    pub(super) rpc_response_status_code: Option<&'static str>,
    pub(super) tls: &'static str,
    #[prometheus(flatten)]
    pub(super) peer: Peer,
    pub(super) service: Option<Arc<str>>,
}

/// What a connection was found to speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Detected {
    pub(super) direction: &'static str,
    pub(super) result: &'static str,
}

/// Who did not prove what they had to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Unproven {
    pub(super) direction: &'static str,
    pub(super) kind: &'static str,
}

/// A refusal by its fixed name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Refused {
    pub(super) direction: &'static str,
    pub(super) reason: &'static str,
}

/// How a renewal ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) result: &'static str,
}

/// Why something was lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    pub(super) reason: &'static str,
}

impl DryRun {
    pub(super) fn of(shadow: &Shadow) -> Self {
        match shadow {
            Shadow::Allow { by } => {
                Self { would: "allow", policy: by.as_deref().unwrap_or_default().to_owned() }
            }
            Shadow::Deny(denial) => {
                Self { would: "deny", policy: policy_and_rule(denial).unwrap_or_default() }
            }
        }
    }
}

impl Decision {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            decision: record.decision.unwrap_or_default(),
            policy: record.policy.clone(),
            of: Namespace(record.peer.clone().map_or(Peer::Unknown, Peer::Proven)),
        }
    }

    pub(super) fn other() -> Self {
        Self { decision: OTHER, policy: Some(OTHER.into()), of: Namespace(Peer::Other) }
    }
}

impl Call {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            rpc_system_name: "grpc",
            rpc_response_status_code: record.grpc_status.map(grpc::known),
            tls: record.protection.as_str(),
            peer: record.peer.clone().map_or(Peer::Unknown, Peer::Proven),
            service: record.service.clone(),
        }
    }

    pub(super) fn other() -> Self {
        Self {
            rpc_system_name: OTHER,
            rpc_response_status_code: None,
            tls: OTHER,
            peer: Peer::Other,
            service: None,
        }
    }
}

impl Request {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            http_request_method: record.known_method().unwrap_or("_OTHER"),
            http_response_status_code: record.status.map(registered),
            error_type: record.refusal,
            network_protocol_version: record.protocol_version().unwrap_or_default(),
            tls: record.protection.as_str(),
            peer: record.peer.clone().map_or(Peer::Unknown, Peer::Proven),
            service: record.service.clone(),
        }
    }

    pub(super) fn other() -> Self {
        Self {
            http_request_method: OTHER,
            http_response_status_code: None,
            error_type: None,
            network_protocol_version: OTHER,
            tls: OTHER,
            peer: Peer::Other,
            service: None,
        }
    }
}

impl Peer {
    fn namespace(&self) -> &str {
        match self {
            Self::Proven(id) => id.namespace(),
            Self::Unknown => "unknown",
            Self::Other => OTHER,
        }
    }

    fn trust_domain(&self) -> &str {
        match self {
            Self::Proven(id) => id.trust_domain().as_str(),
            Self::Unknown => "unknown",
            Self::Other => OTHER,
        }
    }

    fn workload(&self) -> &str {
        match self {
            Self::Proven(id) => id.service_account(),
            Self::Unknown => "unknown",
            Self::Other => OTHER,
        }
    }
}

impl EncodeLabelSet for Peer {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [
            ("peer_trust_domain", self.trust_domain()),
            ("peer_namespace", self.namespace()),
            ("peer_workload", self.workload()),
        ]
        .encode(encoder)
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        (self.0.trust_domain(), self.0.namespace()) == (other.0.trust_domain(), other.0.namespace())
    }
}

impl Eq for Namespace {}

impl Hash for Namespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.trust_domain(), self.0.namespace()).hash(state);
    }
}

impl EncodeLabelSet for Namespace {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("peer_trust_domain", self.0.trust_domain()), ("peer_namespace", self.0.namespace())].encode(encoder)
    }
}

/// The status itself, or the beginning of its class where nobody has registered it (RFC 9110 15): a server may invent
/// nine hundred.
pub(super) fn registered(status: u16) -> u16 {
    let is_known = StatusCode::from_u16(status).is_ok_and(|status| status.canonical_reason().is_some());
    if is_known { status } else { status - status % 100 }
}

pub(super) fn way(direction: Direction) -> Way {
    Way { direction: direction.as_str() }
}
