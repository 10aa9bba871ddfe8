//! What one sidecar knows of the mesh: the settings, its own workload, the policies that select it, and the answers
//! to what it asked. Each delta makes a new value; the old one stays valid for who still reads it.
//!
//! Knows not how it came (`proxy/discovery`), nor how a destination is chosen from it (`proxy/outbound/resolve`).

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use crate::{
    bundle::ForeignBundle,
    id::{IdError, TrustDomain},
    mesh::{External, MeshError, Service, Workload, address_from_wire, address_to_wire},
    policy::{PolicyError, PolicySet, Trust},
    svid::SvidError,
    wire,
};

// A setting of the mesh that lives with the code that obeys it.
pub use crate::target::PathNormalization;

/// What one sidecar knows of the mesh.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which history `sequence` counts in; a restarted control plane begins a new one.
    pub epoch: u64,
    /// Counts the deltas of one epoch.
    pub sequence: u64,
    /// What holds for the whole mesh.
    pub mesh: MeshSettings,
    /// The sidecar's own pod.
    pub own: Arc<Workload>,
    /// All policies that select it.
    pub policies: Arc<PolicySet>,
    /// What it asked for, and what was found.
    pub answers: HashMap<Question, Found>,
    /// Other trust domains whose identities are believed, each by its own bundle.
    pub federated: Arc<[ForeignBundle]>,
}

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// The trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Policies of this namespace select pods of every namespace.
    pub root_namespace: String,
    /// What happens to destinations that no resource names.
    pub outbound: OutboundMode,
    /// How request paths are normalized before they are matched and sent on.
    pub path_normalization: PathNormalization,
    /// Other names of the trust domain: a peer of one of them is one of ours.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Proxies in front of the mesh whose word on the client's address is believed.
    pub trusted_proxies: u8,
}

/// What happens to destinations that no resource names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundMode {
    /// They are refused; the default.
    RegistryOnly,
    /// They are passed on as they are.
    AllowAny,
}

/// An exact look-up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// Who is at this address?
    Address(IpAddr),
    /// Who has this host name (lower case, no port)?
    Host(String),
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing that a resource names.
    Unknown,
    /// A pod.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
    /// A host outside the mesh.
    External(Arc<External>),
}

/// Why a delta cannot be applied. The stream must be opened anew and ask for a full set.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not the next one, and not full.
    #[error("delta ({epoch}, {sequence}) does not follow what is held")]
    Gap {
        /// Its epoch.
        epoch: u64,
        /// Its sequence.
        sequence: u64,
    },
    /// A full delta without a required part.
    #[error("a full delta without {0}")]
    Missing(&'static str),
    /// A part of the mesh that makes no sense.
    #[error("read a part of the mesh")]
    Mesh(#[from] MeshError),
    /// An invalid trust domain.
    #[error("read the mesh settings")]
    Settings(#[from] IdError),
    /// A policy that cannot be understood even in part.
    #[error("read the policies")]
    Policy(#[from] PolicyError),
    /// Bundles of other trust domains that make no sense.
    #[error("read the bundles of other trust domains")]
    Federated(#[from] SvidError),
}

impl MeshSettings {
    /// The names by which policies know the mesh's own workloads.
    #[must_use]
    pub fn trust(&self) -> Trust<'_> {
        Trust { local: &self.trust_domain, aliases: &self.trust_domain_aliases }
    }
}

impl Snapshot {
    /// The state after `delta`, or why it cannot follow `held`. Nothing of a refused delta is taken over.
    ///
    /// # Errors
    /// [`ApplyError`]: the caller keeps what it holds and asks for a full set.
    pub fn apply(held: Option<&Self>, delta: wire::Delta) -> Result<Self, ApplyError> {
        let mut next = match held {
            _ if delta.full => return Self::full(delta),
            Some(held)
                if held.epoch == delta.epoch && held.sequence.checked_add(1) == Some(delta.sequence) =>
            {
                held.clone()
            }
            _ => return Err(ApplyError::Gap { epoch: delta.epoch, sequence: delta.sequence }),
        };
        next.sequence = delta.sequence;
        if let Some(mesh) = delta.mesh {
            next.mesh = mesh.try_into()?;
        }
        if let Some(own) = delta.own {
            next.own = Arc::new(own.try_into()?);
        }
        if let Some(policies) = delta.policies {
            next.policies = Arc::new(PolicySet::from_wire(policies, next.mesh.trust())?);
        }
        if let Some(federated) = delta.federated {
            next.federated = ForeignBundle::all(federated)?;
        }
        for answer in delta.answers {
            let (question, found) = read_answer(answer)?;
            next.answers.insert(question, found);
        }
        Ok(next)
    }

    fn full(delta: wire::Delta) -> Result<Self, ApplyError> {
        let mesh: MeshSettings = delta.mesh.ok_or(ApplyError::Missing("mesh settings"))?.try_into()?;
        let own = delta.own.ok_or(ApplyError::Missing("the own workload"))?;
        let policies = delta.policies.ok_or(ApplyError::Missing("policies"))?;
        Ok(Self {
            epoch: delta.epoch,
            sequence: delta.sequence,
            own: Arc::new(own.try_into()?),
            policies: Arc::new(PolicySet::from_wire(policies, mesh.trust())?),
            answers: delta.answers.into_iter().map(read_answer).collect::<Result<_, _>>()?,
            // A control plane that does not know of others trusts none.
            federated: ForeignBundle::all(delta.federated.unwrap_or_default())?,
            mesh,
        })
    }
}

fn read_answer(answer: wire::Answer) -> Result<(Question, Found), ApplyError> {
    let question = answer.question.ok_or(ApplyError::Missing("the question of an answer"))?.try_into()?;
    let found = match answer.found.ok_or(ApplyError::Missing("what was found"))? {
        wire::answer::Found::Unknown(_) => Found::Unknown,
        wire::answer::Found::Workload(workload) => Found::Workload(Arc::new(workload.try_into()?)),
        wire::answer::Found::Service(service) => Found::Service(Arc::new(service.try_into()?)),
        wire::answer::Found::External(external) => Found::External(Arc::new(external.try_into()?)),
    };
    Ok((question, found))
}

impl From<&Question> for wire::Question {
    fn from(question: &Question) -> Self {
        let by = match question {
            Question::Address(address) => wire::question::By::Address(address_to_wire(*address)),
            Question::Host(host) => wire::question::By::Host(host.clone()),
        };
        Self { by: Some(by) }
    }
}

impl TryFrom<wire::Question> for Question {
    type Error = MeshError;

    fn try_from(question: wire::Question) -> Result<Self, MeshError> {
        match question.by.ok_or(MeshError::Missing("what is asked for"))? {
            wire::question::By::Address(bytes) => Ok(Self::Address(address_from_wire(&bytes)?)),
            wire::question::By::Host(host) => Ok(Self::Host(host.to_ascii_lowercase())),
        }
    }
}

impl From<&Found> for wire::answer::Found {
    fn from(found: &Found) -> Self {
        match found {
            Found::Unknown => Self::Unknown(wire::Unknown {}),
            Found::Workload(workload) => Self::Workload((&**workload).into()),
            Found::Service(service) => Self::Service((&**service).into()),
            Found::External(external) => Self::External((&**external).into()),
        }
    }
}

impl From<&MeshSettings> for wire::MeshSettings {
    fn from(mesh: &MeshSettings) -> Self {
        Self {
            trust_domain: mesh.trust_domain.to_string(),
            root_namespace: mesh.root_namespace.clone(),
            outbound: match mesh.outbound {
                OutboundMode::RegistryOnly => wire::OutboundMode::RegistryOnly,
                OutboundMode::AllowAny => wire::OutboundMode::AllowAny,
            }
            .into(),
            path_normalization: match mesh.path_normalization {
                PathNormalization::Base => wire::PathNormalization::Base,
                PathNormalization::MergeSlashes => wire::PathNormalization::MergeSlashes,
                PathNormalization::DecodeAndMergeSlashes => wire::PathNormalization::DecodeAndMergeSlashes,
                PathNormalization::None => wire::PathNormalization::None,
            }
            .into(),
            trust_domain_aliases: mesh.trust_domain_aliases.iter().map(ToString::to_string).collect(),
            trusted_proxies: mesh.trusted_proxies.into(),
        }
    }
}

impl TryFrom<wire::MeshSettings> for MeshSettings {
    type Error = ApplyError;

    fn try_from(mesh: wire::MeshSettings) -> Result<Self, ApplyError> {
        Ok(Self {
            trust_domain: TrustDomain::parse(&mesh.trust_domain)?,
            root_namespace: mesh.root_namespace,
            outbound: match wire::OutboundMode::try_from(mesh.outbound) {
                Ok(wire::OutboundMode::AllowAny) => OutboundMode::AllowAny,
                // The narrow mode is the default of doubt.
                Ok(wire::OutboundMode::RegistryOnly) | Err(_) => OutboundMode::RegistryOnly,
            },
            path_normalization: match wire::PathNormalization::try_from(mesh.path_normalization) {
                Ok(wire::PathNormalization::Base) => PathNormalization::Base,
                Ok(wire::PathNormalization::MergeSlashes) => PathNormalization::MergeSlashes,
                Ok(wire::PathNormalization::DecodeAndMergeSlashes) => {
                    PathNormalization::DecodeAndMergeSlashes
                }
                Ok(wire::PathNormalization::None) => PathNormalization::None,
                Err(_) => {
                    let value = mesh.path_normalization;
                    return Err(MeshError::Unknown { what: "path normalization", value }.into());
                }
            },
            // More than that would trust what anybody may have written; none is the default of doubt.
            trusted_proxies: u8::try_from(mesh.trusted_proxies).unwrap_or_default(),
            trust_domain_aliases: mesh
                .trust_domain_aliases
                .iter()
                .map(|alias| TrustDomain::parse(alias))
                .collect::<Result<_, _>>()?,
        })
    }
}
