//! What an operator does with policies before and after they are applied: test, lint, ask, compare, write.
//!
//! Pure where possible: text in, values out. Everything is decided by the functions that a sidecar calls, so that an
//! answer here is the answer there. Knows no flags, no exit codes and no streams (`cli`).

pub mod asked;
pub mod cases;
pub mod receiver;
pub mod trial;
pub mod wrong;

mod issuer;
mod laws;
