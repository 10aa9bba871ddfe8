//! The Kubernetes and Istio kinds that an operator writes, from the text of a YAML file to typed values with locations.
//!
//! What cannot be read, or is not implemented, is an error with file, line and how to mend it; nothing is ignored but
//! the fields of Kubernetes' own kinds that no part of the mesh needs. Knows neither folders nor Kubernetes (`ca`
//! reads those), and not how a policy decides (see [`crate::policy`]).
//!
//! A document finds its kind (`document`), the kind's own file reads it by a cursor of [`crate::yaml`]. The kinds of the
//! law (`authorization`, `peer`, `tokens`) are read to their end whatever is wrong with them (`flaws`): what is sound can
//! still be enforced. Where a law cannot be read at all, `doubt` reads what it meant to govern.

mod attachment;
mod authorization;
mod created;
mod document;
mod doubt;
mod endpoints;
mod entry;
mod error;
mod external;
mod flaws;
mod metadata;
mod object;
mod peer;
mod service;
mod tokens;
mod workload;

pub use crate::yaml::{Cause, Located};
pub use attachment::{Attachment, Target};
pub use authorization::AuthorizationPolicy;
pub use created::Created;
pub use document::{Reading, doubts, parse_file, read_file, read_law};
pub use endpoints::{EndpointSlice, SliceEndpoint, SlicePort};
pub use entry::WorkloadEntry;
pub use error::{Doubt, DoubtedLaw, Location, ResourceError};
pub use external::{EntryPort, ServiceEntry};
pub use metadata::{Metadata, Owner};
pub use object::{Kind, Resource};
pub use peer::PeerAuthentication;
pub use service::{ClusterIp, Service, ServicePort, TargetPort, Transport};
pub use tokens::{JwtRule, KeySource, RequestAuthentication};
pub use workload::{
    Condition, Container, ContainerPort, Deployment, EnvValue, EnvVar, Phase, Pod, PodSpec, PodStatus,
};

#[cfg(test)]
mod tests;
