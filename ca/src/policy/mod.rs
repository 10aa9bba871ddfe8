//! What an operator does with policies before and after they are applied: test, lint, ask, compare, write.
//!
//! Pure where possible: text in, values out. Everything is decided by the functions that a sidecar calls, so that an
//! answer here is the answer there. Knows no flags, no exit codes and no streams (`cli`).

pub mod asked;
pub mod cases;
pub mod change;
pub mod comparison;
pub mod destination;
pub mod examine;
pub mod lint;
pub mod load;
pub mod observed;
pub mod question;
pub mod receiver;
pub mod suggestion;
pub mod trial;
pub mod written;
pub mod wrong;

pub(crate) mod input;
mod issuer;
mod laws;
mod paths;
