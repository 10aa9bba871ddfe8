//! An operator's commands to the running control plane, over a unix socket in the state folder: one JSON line asks, one
//! JSON line answers.
//!
//! - `serve`: the control plane's side; only its own user and root are heard
//! - `call`: the command line's side
//!
//! Knows not what a command does (`authority`).

mod call;
mod serve;

use serde::{Deserialize, Serialize};

use crate::authority::Status;

pub use call::{CallError, call};
pub use serve::{AdminError, Desk, bind, run};

/// A command has one name in it; a longer line is nobody's.
const MAX_COMMAND_BYTES: usize = 4096;
/// A status of some roots and names.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, tag = "do")]
pub enum Command {
    /// Say how things are.
    Status,
    /// Replace the root.
    RotateRoot {
        /// Also if somebody does not know the new one yet.
        force: bool,
    },
    /// Replace the intermediate.
    RotateIntermediate,
    /// Replace this root or intermediate, and cut it off.
    Taint {
        /// Its id, or a key identifier.
        authority: String,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Answer {
    /// It was done, or begun.
    Done {
        /// The root or intermediate that comes.
        authority: Option<String>,
        /// How things are now.
        status: Box<Status>,
    },
    /// It was not done.
    Refused(String),
}
