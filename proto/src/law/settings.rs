//! What the operator of a mesh says of all its laws.

use crate::{mtls::MtlsMode, policy::Provider};

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
