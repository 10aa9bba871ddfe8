//! Every reason to say no on the data path: its status, its fixed label, whose fault it is, and what mends it.

use douane_proto::policy::Denial;

/// Why a connection, stream or request is refused. Each has a test that provokes it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// A decision said no.
    #[error("denied: {}", .0.reason)]
    Denied(Denial),
}
