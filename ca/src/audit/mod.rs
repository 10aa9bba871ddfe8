//! The audit log: one JSON line for each certificate, each refusal and each change of the authority, on disk before the
//! answer leaves, and chained so that a change is found.
//!
//! Each line holds the SHA-256 over the previous line's hash and its own record. Whoever may write the folder can still
//! forge a whole log, or cut its end and the anchor beside it: what they cannot forge is the head that was logged
//! meanwhile (and collected elsewhere), to which `douane ca audit verify --head` holds the files.
//! - `record`: what is written down; `chain`: how a line follows from the last; `files`: what lies in the folder
//! - `ledger`: the door for writers; `writer` writes and `sync` waits for the disk, on `paper`; `flood`: many refusals
//!   become a count
//! - `verify`: is it whole? `read`: which records match?
//!
//! Knows not what is recorded, nor by whom. Nothing of a token or a key is ever part of a record.

mod chain;
mod error;
mod files;
mod flood;
mod ledger;
mod order;
mod paper;
mod read;
mod record;
mod sync;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use chain::Head;
pub use error::AuditError;
pub use ledger::Ledger;
pub use read::{Wanted, matching};
pub use record::{Event, Record};
pub use verify::{Fault, Report, verify};
