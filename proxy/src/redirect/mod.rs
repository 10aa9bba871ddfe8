//! Brings a pod's connections to its sidecar: rules for the kernel's nf_tables, put there by netlink, without any
//! program of the host. Knows ports, uids and marks; nothing of identities or policies. What arrives by these rules,
//! `net::original_dst` asks back.
//!
//! `plan` says which rules (pure, printable), `transaction` installs them in one step, `inspection` reads them back.
//! The functions here act on the network namespace of the calling thread and need CAP_NET_ADMIN in it.

pub mod error;
pub mod inspection;
pub mod plan;
pub mod rules;

mod expressions;
mod kernel;
mod reading;
mod text;
mod transaction;
mod wire;

use error::Error;
use inspection::Installed;
use plan::Plan;

/// Puts the plan's rules in force, in the place of any that were installed before. All or nothing.
///
/// # Errors
/// The kernel refused: which operation, and why. What was there before is untouched.
pub fn install(plan: &Plan) -> Result<(), Error> {
    transaction::replace(plan)
}

/// Removes all rules of ours; none installed is no error.
///
/// # Errors
/// The kernel refused.
pub fn remove() -> Result<(), Error> {
    transaction::remove()
}

/// What is installed, read from the kernel, with its counters.
///
/// # Errors
/// The kernel refused.
pub fn show() -> Result<Installed, Error> {
    inspection::read()
}
