//! A root that somebody gives us: its chain and key in PEM files, read and never written, and read again when they change.
//!
//! The chain begins with the certificate whose key it is and ends with a self-signed root, which sidecars trust. Knows not
//! when another root takes its place (`rotation`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use zeroize::Zeroizing;

use super::{
    above::{Elsewhere, Vouched},
    armor,
    csr::PublicKey,
    sign::{Petition, SignError, Signer},
};

/// A chain of a few certificates, or one key.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Sidecars take no longer chains: ours is one more.
const MOST_CERTIFICATES: usize = 4;

/// A root in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRoot {
    /// PEM: the certificate that signs, then its issuers, up to a self-signed root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Why a given root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// A file cannot be read.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path}: {reason}", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Both do not fit together.
    #[error("{path} and its key: {source}", path = path.display())]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        source: SignError,
    },
}

struct Loaded {
    signer: Signer,
    // From the certificate that signs up to the root, and without it.
    chain: Vec<Vec<u8>>,
    root: Vec<u8>,
}

// What a file looked like, to know that it has changed.
type Looks = [Option<(SystemTime, u64)>; 2];

impl GivenRoot {
    /// Reads the files, and whenever they change.
    ///
    /// # Errors
    /// [`GivenError`].
    pub fn watch(self) -> Result<Elsewhere, GivenError> {
        // Looked at before they are read: what changes meanwhile is read again.
        let looks = self.looks();
        let first = self.load()?;
        let signed_as = Arc::new(Mutex::new((looks, Arc::new(first))));
        let (files, seen) = (self.clone(), Arc::clone(&signed_as));
        let has_changed = move || {
            let known = seen.lock().unwrap_or_else(PoisonError::into_inner).0;
            let now = files.looks();
            // Half a change (one file of two) is passed over until both fit.
            now != known && now.iter().all(Option::is_some)
        };
        let sign = move |petition: &Petition| {
            let looks = self.looks();
            let mut held = signed_as.lock().unwrap_or_else(PoisonError::into_inner);
            if held.0 != looks {
                let loaded = self.load().map_err(|error| error.to_string())?;
                *held = (looks, Arc::new(loaded));
            }
            let loaded = Arc::clone(&held.1);
            drop(held);
            loaded.vouch(petition).map_err(|error| format!("{}: {error}", self.certificate.display()))
        };
        Ok(Elsewhere { sign: Arc::new(sign), has_changed: Arc::new(has_changed) })
    }

    fn looks(&self) -> Looks {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn load(&self) -> Result<Loaded, GivenError> {
        let content = |path: &Path, reason: &str| GivenError::Content {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let text = read(&self.certificate)?;
        let mut chain = armor::certificates(&text).map_err(|reason| content(&self.certificate, reason))?;
        if chain.len() > MOST_CERTIFICATES {
            return Err(content(&self.certificate, "its chain is longer than sidecars take (4)"));
        }
        let Some(root) = chain.last().cloned() else {
            return Err(content(&self.certificate, "it holds no certificate"));
        };
        let key = read(&self.key)?;
        let key = std::str::from_utf8(&key).map_err(|_| content(&self.key, "it is not PEM"))?;
        let first = chain.first().cloned().unwrap_or_default();
        let signer = Signer::given(first, key)
            .map_err(|source| GivenError::Pair { path: self.certificate.clone(), source })?;
        chain.pop();
        Ok(Loaded { signer, chain, root })
    }
}

impl Loaded {
    fn vouch(&self, petition: &Petition) -> Result<Vouched, SignError> {
        let key =
            PublicKey::from_csr(&petition.csr).map_err(|_| SignError::Check("our own request is wrong"))?;
        let certificate =
            self.signer.vouch(&key, &petition.id, (&petition.trust_domain, petition.life, petition.now))?;
        let chain = [certificate].into_iter().chain(self.chain.iter().cloned()).collect();
        Ok(Vouched { chain, root: self.root.clone() })
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, GivenError> {
    let read = || -> io::Result<Zeroizing<Vec<u8>>> {
        if fs::metadata(path)?.len() > MAX_FILE_BYTES {
            return Err(io::Error::other("it is longer than 64 KiB"));
        }
        Ok(Zeroizing::new(fs::read(path)?))
    };
    read().map_err(|source| GivenError::Read { path: path.to_owned(), source })
}
