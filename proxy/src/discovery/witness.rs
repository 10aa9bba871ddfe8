//! What the control plane wants to know of the traffic, beside the mesh's own business. Who counts and who tells are apart:
//! the stream knows nothing of requests, and whoever counts them knows nothing of streams.

use std::{fmt::Debug, rc::Rc};

use douane_proto::wire;
use tokio::sync::Notify;

/// Whoever has seen the traffic.
pub trait Witness: Debug {
    /// A stream begins: the control plane at its other end has heard nothing yet.
    fn begin(&self);

    /// What was counted since this was asked last.
    fn figures(&self) -> Vec<wire::Figures>;

    /// Operators ask this from now on, in place of what they asked before.
    fn inquire(&self, inquiry: wire::Inquiry);

    /// Told when there are sightings.
    fn news(&self) -> Rc<Notify>;

    /// What was seen since this was asked last.
    fn sightings(&self) -> Vec<wire::Sightings>;
}

/// Nobody has seen anything.
impl Witness for () {
    fn begin(&self) {}

    fn figures(&self) -> Vec<wire::Figures> {
        Vec::new()
    }

    fn inquire(&self, _: wire::Inquiry) {}

    fn news(&self) -> Rc<Notify> {
        Rc::default()
    }

    fn sightings(&self) -> Vec<wire::Sightings> {
        Vec::new()
    }
}
