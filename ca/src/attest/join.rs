//! Single-use join tokens, for machines without a cluster: 256 random bits, of which the state folder keeps only a hash.
//!
//! The command that makes one and the control plane that spends it meet in the folder, so that a running control plane
//! knows a new token at once. A token is spent durably before its certificate leaves: a crash costs a token, never a
//! second certificate. Knows not the wire (`issue`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{digest, rand};
use douane_proto::id::{TrustDomain, WorkloadId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    attest::{error::AttestError, joined::short},
    state::{self, Readers, StateError, StateFolder},
};

/// What every join token begins with, so that scanners of leaked secrets know it.
const PREFIX: &str = "douane-join-";
/// 256 bits.
const SECRET_BYTES: usize = 32;
/// An entry has about 100 bytes.
const MAX_ENTRY_BYTES: u64 = 4096;

/// The folder of tokens that are not spent yet.
#[derive(Debug, Clone)]
pub(crate) struct JoinTokens {
    folder: PathBuf,
    trust_domain: TrustDomain,
}

/// A token that was found and is not spent yet.
#[derive(Debug)]
pub(crate) struct Ticket {
    entry: PathBuf,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    /// Seconds since 1970.
    pub(crate) expires: u64,
}

/// Why no join token was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is no authority whose tokens these would be.
    #[error("{path} holds no authority yet: start `douane ca --dir {path}` once", path = .0.display())]
    NoAuthority(PathBuf),
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel gave no random bytes.
    #[error("there are no random bytes")]
    NoRandomness,
}

/// Makes a token for `id` that can be used once within `life` of `now` (seconds since 1970).
///
/// # Errors
/// [`CreateError`].
pub fn create(
    state: &StateFolder,
    id: &WorkloadId,
    life: Duration,
    now: u64,
) -> Result<Zeroizing<String>, CreateError> {
    if !state.authority().is_file() {
        return Err(CreateError::NoAuthority(state.path().to_owned()));
    }
    let folder = state.join_tokens();
    state::private_folder(&folder).map_err(state::failed("make", &folder))?;
    let mut secret = Zeroizing::new([0_u8; SECRET_BYTES]);
    rand::fill(&mut *secret).map_err(|_| CreateError::NoRandomness)?;
    let token = Zeroizing::new(format!("{PREFIX}{}", crate::hex::encode(&*secret)));
    let entry = Entry {
        namespace: id.namespace().to_owned(),
        service_account: id.service_account().to_owned(),
        expires: now.saturating_add(life.as_secs()),
    };
    let path = folder.join(hash_of(&token));
    let text = serde_json::to_vec(&entry).map_err(io::Error::other);
    let written = text.and_then(|text| state::write(&path, &text, Readers::Owner));
    written.map_err(state::failed("write", &path))?;
    state::hand_to_owner_of(&state.authority(), &[&folder, &path])
        .map_err(state::failed("hand over", &path))?;
    Ok(token)
}

/// Could this be a token of ours?
pub(crate) fn is_shaped(token: &str) -> bool {
    token.len() == PREFIX.len() + 2 * SECRET_BYTES && token.starts_with(PREFIX)
}

impl JoinTokens {
    pub(crate) fn new(state: &StateFolder, trust_domain: TrustDomain) -> Self {
        Self { folder: state.join_tokens(), trust_domain }
    }

    /// Whose token is it? It stays unspent until [`Ticket::spend`].
    pub(crate) fn find(&self, token: &str, now: u64) -> Result<(WorkloadId, Ticket), AttestError> {
        if !is_shaped(token) {
            return Err(AttestError::UnknownJoinToken);
        }
        let hash = hash_of(token);
        let path = self.folder.join(&hash);
        let entry = read(&path)?;
        if now >= entry.expires {
            // It is of no use to anybody any more; a failure to remove it harms nobody.
            let _ = state::remove(&path);
            return Err(AttestError::JoinTokenExpired);
        }
        let id = WorkloadId::new(&self.trust_domain, &entry.namespace, &entry.service_account)?;
        Ok((id, Ticket { entry: path, hash }))
    }

    /// Removes what expired unused.
    pub(crate) fn sweep(&self, now: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if read(&path).is_ok_and(|entry| now >= entry.expires) {
                let _ = state::remove(&path);
            }
        }
    }
}

/// Every token that is not spent, with its hash.
pub(crate) fn list(folder: &Path) -> Vec<(String, Entry)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), read(&path).ok()?))).collect()
}

impl Ticket {
    /// What a registration by it is called: the token's hash.
    pub(crate) fn registration(&self) -> &str {
        &self.hash
    }

    /// The first digits of that.
    pub(crate) fn name(&self) -> String {
        short(&self.hash)
    }

    /// Spends the token, durably. Of several who try at the same time, one succeeds.
    pub(crate) fn spend(&self) -> Result<(), AttestError> {
        match state::remove(&self.entry) {
            Ok(true) => Ok(()),
            Ok(false) => Err(AttestError::UnknownJoinToken),
            Err(error) => Err(AttestError::Storage(error)),
        }
    }
}

fn read(path: &Path) -> Result<Entry, AttestError> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AttestError::UnknownJoinToken),
        found => found.map_err(AttestError::Storage)?,
    };
    if metadata.len() > MAX_ENTRY_BYTES {
        return Err(AttestError::Storage(io::Error::other("a join token's entry is too large")));
    }
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AttestError::UnknownJoinToken),
        read => serde_json::from_slice(&read.map_err(AttestError::Storage)?)
            .map_err(|error| AttestError::Storage(io::Error::other(error))),
    }
}

// The name is a hash of 256 random bits: who reads the folder cannot use what it finds.
fn hash_of(token: &str) -> String {
    crate::hex::encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}
