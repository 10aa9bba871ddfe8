//! Join tokens and who came by them, as an operator sees and ends them. Meets a running control plane in the state folder.

use std::path::Path;

use super::{
    join,
    joined::{self, short},
};
use crate::state::{self, StateError, StateFolder};

/// A join token, or who came by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The first digits of the token's hash; what it is called. The token itself nobody knows.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// What it can still do.
    pub standing: Standing,
    /// Until when, seconds since 1970: the token's own end, or that of the last certificate.
    pub ends: i64,
    hash: String,
}

/// What a join token can still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can be spent.
    Waiting,
    /// Nobody spent it in time.
    Expired,
    /// It was spent; who came by it renews by certificate.
    Joined,
    /// The last certificate has ended: a new token is needed.
    Ended,
    /// An operator ended it.
    Revoked,
}

impl Standing {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Expired => "expired",
            Self::Joined => "joined",
            Self::Ended => "ended",
            Self::Revoked => "revoked",
        }
    }
}

/// All of them at `now` (seconds since 1970), in the order of their identities.
#[must_use]
pub fn list(state: &StateFolder, now: u64) -> Vec<Listed> {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let waiting = join::list(&state.join_tokens()).into_iter().map(|(hash, entry)| {
        let ends = i64::try_from(entry.expires).unwrap_or(i64::MAX);
        Listed {
            name: short(&hash),
            namespace: entry.namespace,
            service_account: entry.service_account,
            standing: if now < ends { Standing::Waiting } else { Standing::Expired },
            ends,
            hash,
        }
    });
    let folder = state.joined();
    let here = joined::list(&folder).into_iter().map(|(hash, entry)| Listed {
        name: short(&hash),
        standing: standing(&folder.join(&hash), entry.ends, now),
        namespace: entry.namespace,
        service_account: entry.service_account,
        ends: entry.ends,
        hash,
    });
    let mut all: Vec<_> = waiting.chain(here).collect();
    all.sort_by(|one, other| {
        let key = |it: &Listed| (it.namespace.clone(), it.service_account.clone(), it.name.clone());
        key(one).cmp(&key(other))
    });
    all
}

fn standing(path: &Path, ends: i64, now: i64) -> Standing {
    match joined::is_revoked(path) {
        // What cannot be looked at is not called good.
        Ok(true) | Err(_) => Standing::Revoked,
        Ok(false) if now < ends => Standing::Joined,
        Ok(false) => Standing::Ended,
    }
}

/// Ends what was listed: a waiting token is removed, who joined renews no more. Durable.
///
/// # Errors
/// When the disk fails.
pub fn revoke(state: &StateFolder, listed: &Listed) -> Result<(), StateError> {
    match listed.standing {
        Standing::Waiting | Standing::Expired => {
            let path = state.join_tokens().join(&listed.hash);
            state::remove(&path).map_err(state::failed("remove", &path))?;
            // Perhaps it was spent a moment ago.
            let spent = state.joined().join(&listed.hash);
            if spent.exists() {
                joined::revoke(&spent).map_err(state::failed("revoke", &spent))?;
            }
            Ok(())
        }
        Standing::Joined | Standing::Ended | Standing::Revoked => {
            let path = state.joined().join(&listed.hash);
            joined::revoke(&path).map_err(state::failed("revoke", &path))
        }
    }
}
