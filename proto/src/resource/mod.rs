//! The Kubernetes and Istio kinds that an operator writes, from the text of a YAML file to typed values with locations.
//!
//! What cannot be read, or is not implemented, is an error with file, line and how to mend it; nothing is ignored but
//! the fields of Kubernetes' own kinds that no part of the mesh needs. Knows neither folders nor Kubernetes (`ca`
//! reads those), and not how a policy decides (see [`crate::policy`]).
//!
//! A document finds its kind (`document`), the kind's own file reads it by a cursor of [`crate::yaml`]. Where a law is broken, `doubt` reads what it meant to govern.

mod document;
mod doubt;
mod error;
mod external;
mod metadata;
mod security;
mod service;
mod workload;

pub use crate::yaml::{Cause, Located};
pub use document::{Kind, Resource, doubts, parse_file};
pub use error::{Doubt, Location, ResourceError};
pub use external::{EntryPort, ServiceEntry};
pub use metadata::{Metadata, Owner};
pub use security::{AuthorizationPolicy, MtlsMode, PeerAuthentication};
pub use service::{ClusterIp, Service, ServicePort, TargetPort, Transport};
pub use workload::{
    Condition, Container, ContainerPort, Deployment, EnvValue, EnvVar, Phase, Pod, PodSpec, PodStatus,
};

#[cfg(test)]
mod tests;
