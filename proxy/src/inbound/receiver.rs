//! What serves the streams of all connections: read by `streams`, `http` and `tcp`, which add what it does.

use std::rc::Rc;

use bytes::Bytes;

use crate::{
    authz::{Judge, SeenBody},
    config::Limits,
    discovery::Mesh,
    exchange::{ledger::Ledger, origins::Origins},
    limits::{places::Places, resting::Resting},
    refusal::Refusal,
    shutdown::Shutdown,
    telemetry::once::Once,
};

/// Serves streams.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The law and the own workload.
    pub(super) mesh: Mesh,
    /// Decides.
    pub(super) judge: Rc<Judge>,
    /// Where each stream is recorded.
    pub(super) ledger: Ledger,
    /// The application.
    pub(super) origins: Origins,
    /// Requests in progress to each port.
    pub(super) requests: Places,
    /// The same of opaque streams.
    pub(super) opaque: Places,
    /// Peers without a sidecar, warned of.
    pub(super) warned: Once,
    /// Connections of sidecars that may be asked to leave.
    pub(super) resting: Rc<Resting>,
    /// Are we draining?
    pub(super) shutdown: Shutdown,
    /// How long each may take.
    pub(super) limits: Limits,
}

/// An opaque stream has no body that an authorizer could see.
pub(super) async fn no_body(_: usize) -> Result<SeenBody, Refusal> {
    Ok(SeenBody { bytes: Bytes::new(), is_whole: true })
}
