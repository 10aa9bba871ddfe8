//! A record on its way to the disk, and who waits for it.

use tokio::sync::oneshot;

use super::{error::AuditError, record::Record};

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The kernel has it: it outlives our process, and the disk has it within a tenth of a second.
    Written,
    /// The disk has it: it outlives the machine.
    Synced,
}

/// Told when it is so.
pub(super) type Done = oneshot::Sender<Result<(), AuditError>>;

/// A record that somebody waits for.
pub(super) struct Order {
    pub(super) record: Record,
    pub(super) until: Until,
    pub(super) done: Done,
}
