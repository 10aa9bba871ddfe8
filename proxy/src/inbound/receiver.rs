//! What serves the streams of all connections: read by `streams`, `http` and `tcp`, which add what it does.

use crate::{
    config::Limits,
    discovery::Mesh,
    exchange::{ledger::Ledger, origins::Origins},
    shutdown::Shutdown,
    telemetry::once::Once,
};

/// Serves streams.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The law and the own workload.
    pub(super) mesh: Mesh,
    /// Where each stream is recorded.
    pub(super) ledger: Ledger,
    /// The application.
    pub(super) origins: Origins,
    /// Peers without a sidecar, warned of.
    pub(super) warned: Once,
    /// Are we draining?
    pub(super) shutdown: Shutdown,
    /// How long each may take.
    pub(super) limits: Limits,
}
