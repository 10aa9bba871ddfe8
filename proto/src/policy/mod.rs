//! Compiled policies and the pure decision on them.

mod decide;

pub use decide::{Decision, Denial, Permit, decide};

use crate::{id::TrustDomain, wire};

/// All policies that select one workload, compiled. One that exists is valid.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {}

/// Why the policies of the wire cannot be understood at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An action that this version does not know.
    #[error("policy {policy}: unknown action {action}")]
    Action {
        /// `namespace/name`.
        policy: String,
        /// Its number on the wire.
        action: i32,
    },
}

impl PolicySet {
    /// Compiles what the control plane sent. A rule that requires an unknown feature, or cannot be compiled, is void in
    /// an ALLOW policy and widened in a DENY policy; `complaints` then says so.
    ///
    /// # Errors
    /// [`PolicyError`] when not even that can be told.
    pub fn from_wire(set: wire::PolicySet, local: &TrustDomain) -> Result<Self, PolicyError> {
        let _ = (set, local);
        Ok(Self {})
    }

    /// What could not be applied as written, one line each, for the operator.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &[]
    }

    /// Must the receiver see HTTP to decide on this port? Then an opaque stream is refused.
    #[must_use]
    pub fn needs_http(&self, port: u16) -> bool {
        let _ = port;
        false
    }
}
