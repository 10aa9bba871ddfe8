//! Case files: unit tests of policies, as `douane policy test` and the tests over the wire read them.
//!
//! Reading ends in plain values (`case`): the law that governs a workload, and requests as bytes that a client would send,
//! with tokens already minted. Who judges them, the pure engine or a real sidecar, is not known here.

mod case;
mod fields;
mod read;
mod request;
mod token;

pub use case::{Case, CaseFile, Request, Unreadable};
pub(crate) use read::MAX_FILE_BYTES;
pub use read::{FileError, parse, read};
