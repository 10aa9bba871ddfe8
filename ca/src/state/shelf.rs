//! Where replicas keep what they share, if that is no folder: the authority's state, which one of them may change, and what each
//! says of itself.
//!
//! A door only; `authority/kubernetes` stands behind it. Whoever holds it may call from anywhere: a call waits for a network,
//! seconds at most. Errors are for a human.

use std::{fmt, io, path::PathBuf};

/// What lies on a shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// The roots with their keys, and where each stands.
    Authority,
    /// Until when anything may be valid that was signed by whoever said nothing of it, or whose word was lost.
    Before,
    /// Until when anything that the replica of this number has signed may be valid.
    Horizon(u8),
    /// Who holds certificates of the replica of this number.
    Roll(u8),
}

/// Our place among the replicas, of this number, is not ours any more: who goes on would sign without anybody knowing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "place {0} among the replicas is another's by now; start this one again, so that it takes another place"
)]
pub struct PlaceLost(pub u8);

/// Where replicas keep what they share.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Which of them we are: nobody else writes our items.
    fn replica(&self) -> u8;

    /// Where an item lies, for messages.
    fn name(&self, item: Item) -> PathBuf;

    /// What lies there; `None`: nothing was ever put there. The authority's state is as fresh as can be; what others say of
    /// themselves is as of the last [`Self::lead`].
    ///
    /// # Errors
    /// When nobody can say.
    fn read(&self, item: Item) -> io::Result<Option<Vec<u8>>>;

    /// Puts `bytes` there. The authority's state only if it is still what was read last, and we lead.
    ///
    /// # Errors
    /// When it may not have come to lie there; [`PlaceLost`] within, when it never can.
    fn write(&self, item: Item, bytes: &[u8]) -> io::Result<()>;

    /// Do we lead? Then nobody else does until this is asked again or some seconds have passed. Takes the place of whoever
    /// is gone.
    ///
    /// # Errors
    /// When nobody can say: then nobody may change anything. [`PlaceLost`] within, when we must end.
    fn lead(&self) -> io::Result<bool>;

    /// We end: another may lead at once, and have our place with what was said there of what we signed.
    fn leave(&self);
}
