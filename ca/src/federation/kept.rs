//! The bundles that were fetched last, kept in the state folder (SPIFFE Federation 4.2): a control plane that starts while an
//! endpoint is away goes by what its predecessor knew, and knows a server by the newest bundle, as it must.
//!
//! An operator who gives another first bundle means it: it takes the place of what was kept.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use douane_proto::{bundle::BundleDocument, id::TrustDomain};
use serde::{Deserialize, Serialize};

use super::{known::Held, relation::Relation};
use crate::state::{self, Readers, StateFolder};

/// A bundle has 256 KiB at most; JSON within JSON writes some bytes as two.
const MAX_ENTRY_BYTES: u64 = 1024 * 1024;

/// The folder of bundles.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    trust_domain: String,
    /// Seconds since 1970.
    fetched: i64,
    /// A hash of the first bundle that an operator gave then.
    first: String,
    bundle: String,
}

impl Kept {
    /// The one of a state folder.
    #[must_use]
    pub fn new(state: &StateFolder) -> Self {
        Self(state.federation())
    }

    /// What was fetched last of the domain. What cannot be read is as if it were not kept, and said aloud.
    pub(super) fn load(&self, relation: &Relation) -> Option<Held> {
        let path = self.file(&relation.trust_domain);
        let entry = match read(&path) {
            Ok((entry, document)) => (entry.trust_domain == relation.trust_domain.as_str())
                .then_some((entry, document))
                .ok_or_else(|| io::Error::other("it is of another trust domain")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
        };
        match entry {
            Ok((entry, _)) if entry.first != mark(relation) => {
                tracing::warn!(domain = %relation.trust_domain, "another first bundle was given: what was fetched before counts no more");
                None
            }
            Ok((entry, document)) => Some(Held { document, fetched: Some(entry.fetched) }),
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "a kept bundle cannot be read");
                None
            }
        }
    }

    /// Keeps what was fetched just now. Slow.
    pub(super) fn keep(&self, relation: &Relation, held: &Held) -> io::Result<()> {
        let entry = Entry {
            trust_domain: relation.trust_domain.to_string(),
            fetched: held.fetched.unwrap_or_default(),
            first: mark(relation),
            bundle: held.document.write(),
        };
        state::private_folder(&self.0)?;
        state::write(&self.file(&relation.trust_domain), &serde_json::to_vec(&entry)?, Readers::Owner)
    }

    /// Forgets all but these: who is federated with again later begins anew (SPIFFE Federation 6.3).
    pub(super) fn forget_others(&self, domains: &BTreeSet<TrustDomain>) {
        let wanted: BTreeSet<PathBuf> = domains.iter().map(|domain| self.file(domain)).collect();
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_ours = path.extension().is_some_and(|extension| extension == "json");
            if !is_ours || wanted.contains(&path) {
                continue;
            }
            if let Err(error) = state::remove(&path) {
                tracing::error!(%error, file = %path.display(), "a bundle that counts no more cannot be removed");
            }
        }
    }

    /// Where the bundle of a domain lies: a domain may be as long as a file's name, and a hash tells them apart as well.
    pub(super) fn file(&self, domain: &TrustDomain) -> PathBuf {
        self.0.join(format!("{}.json", hash(domain.as_str().as_bytes())))
    }
}

fn read(path: &Path) -> io::Result<(Entry, BundleDocument)> {
    if fs::metadata(path)?.len() > MAX_ENTRY_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    let entry: Entry = serde_json::from_slice(&fs::read(path)?)?;
    let document = BundleDocument::parse(entry.bundle.as_bytes()).map_err(io::Error::other)?;
    Ok((entry, document))
}

// Of all by which an operator says whom to believe: another endpoint, or another way to know it, begins anew.
fn mark(relation: &Relation) -> String {
    let Relation { trust_domain, url, server } = relation;
    let mut told = format!("{trust_domain}\n{url}\n{}\n", server.profile()).into_bytes();
    told.extend_from_slice(server.first());
    hash(&told)
}

fn hash(bytes: &[u8]) -> String {
    crate::hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}
