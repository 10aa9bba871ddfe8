//! The certificate of the bundle endpoint in profile `https_web`: two PEM files that somebody else renews (an ACME client,
//! cert-manager). They are read again when they change; what cannot be used never replaces what can.
//!
//! Knows not who reads the bundle (`endpoint`).

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::time;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{error::TlsError, public::endpoint_config};

/// How often the files are looked at. They are small, and not every file system reports changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A chain of certificates has some KiB.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// A certificate with its key, in files.
pub struct WebFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    read: Texts,
}

// What both files hold.
#[derive(PartialEq)]
struct Texts {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl WebFiles {
    /// Reads both.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be read, or do not fit together.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let read = Texts::read(&certificate, &key)?;
        let config = read.config(&certificate, &key)?;
        Ok(Self { certificate, key, current: RwLock::new(Current { config, read }) })
    }

    /// Takes over what changes in them, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failing = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(LOOK_EVERY) => {}
            }
            let files = Arc::clone(&self);
            let Ok(looked) = tokio::task::spawn_blocking(move || files.refresh()).await else { return };
            let failure = looked.err().map(|error| error.to_string());
            if let Some(error) = failure.as_ref().filter(|error| failing.as_ref() != Some(*error)) {
                tracing::error!(
                    error,
                    "the bundle endpoint's certificate cannot be read anew; the last one stays"
                );
            }
            failing = failure;
        }
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    // A certificate and a key that do not fit are two files of which one is written yet: the next look will tell.
    fn refresh(&self) -> Result<(), TlsError> {
        let read = Texts::read(&self.certificate, &self.key)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).read == read {
            return Ok(());
        }
        let config = read.config(&self.certificate, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { config, read };
        tracing::info!(file = %self.certificate.display(), "the bundle endpoint shows a new certificate");
        Ok(())
    }
}

impl Texts {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self { certificate: bounded(certificate)?, key: bounded(key)? })
    }

    fn config(&self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate);
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| wrong(certificate, &error))?;
        if chain.is_empty() {
            return Err(wrong(certificate, &"it holds no PEM certificate"));
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| wrong(key, &error))?;
        endpoint_config(chain, private).map(Arc::new).map_err(|error| wrong(certificate, &error))
    }
}

fn bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(|error| wrong(path, &error))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(path, &error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(path, &format!("more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

fn wrong(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}
