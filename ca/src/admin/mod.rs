//! An operator's commands to the running control plane, over a unix socket in the state folder: one JSON line asks, one
//! JSON line answers.
//!
//! - `serve`: the control plane's side; only its own user and root are heard
//! - `call`: the command line's side
//! - `watch`: what is asked of single requests
//!
//! Knows not what a command does (`authority`, `traffic`).

mod call;
mod serve;
mod watch;

use serde::{Deserialize, Serialize};

use crate::{
    authority::Status,
    discovery::Missed,
    traffic::{seen::Seen, view::View},
};

pub use call::{CallError, Tapped, call};
pub use serve::{AdminError, Desk, bind, bind_when_leading, run};
pub use watch::{Remembered, TapFilter};

/// A command has one name in it; a longer line is nobody's.
const MAX_COMMAND_BYTES: usize = 4096;
/// The traffic of a large mesh has the longest: some hundred bytes for each edge.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;

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
    /// Say who talks to whom.
    Traffic {
        /// Over how long.
        window_seconds: u64,
        /// Only what has an end in it.
        namespace: Option<String>,
    },
    /// Say which pods ought to have a sidecar and have none.
    Unmeshed,
    /// Tell live requests, until whoever asks leaves.
    Tap(TapFilter),
    /// Say what sidecars remember of a request or stream.
    Search {
        /// A trace id (32 hexadecimal digits), a span id (16), a request id, or an address.
        id: String,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Answer {
    /// It was done, or begun.
    Done {
        /// The root or intermediate that comes.
        authority: Option<String>,
        /// How things are now.
        status: Box<Status>,
    },
    /// Who talks to whom.
    Traffic(Box<View>),
    /// Pods that ought to have a sidecar and have none, by namespace and name; the first thousand, and how many there are.
    Unmeshed {
        /// The first of them.
        pods: Vec<Missed>,
        /// How many there are.
        all: usize,
    },
    /// A live request; more follow.
    Seen(Box<Seen>),
    /// So many live requests more were seen than may be told; more follow.
    LeftOut(u64),
    /// What sidecars remember.
    Remembered(Box<Remembered>),
    /// It was not done.
    Refused(String),
}
