//! What the control plane wants to know of the traffic, beside the mesh's own business. Who counts and who tells are apart:
//! the stream knows nothing of requests, and whoever counts them knows nothing of streams.

use std::fmt::Debug;

use douane_proto::wire;

/// Whoever has seen the traffic.
pub trait Witness: Debug {
    /// A stream begins: the control plane at its other end has heard nothing yet.
    fn begin(&self);

    /// What was counted since this was asked last.
    fn figures(&self) -> Vec<wire::Figures>;
}

/// Nobody has seen anything.
impl Witness for () {
    fn begin(&self) {}

    fn figures(&self) -> Vec<wire::Figures> {
        Vec::new()
    }
}
