//! The root at rest: made once, sealed in the state folder, read back at each start.
//!
//! A folder that holds a state in part, a damaged one, or one of another trust domain stops the start: a new root in its
//! place would cut off every sidecar that trusts the old one. Knows not how certificates are made (`sign`).

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use douane_proto::id::TrustDomain;
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use crate::{
    authority::sign::{SignError, Signer},
    state::{self, Readers, StateError, StateFolder},
};

/// A root has under 2 KiB; a larger file is not one of ours.
const MAX_ROOT_BYTES: u64 = 64 * 1024;

/// Why there is no root to sign with. It is never mended by making a new one.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A part of a state is there, the root is not.
    #[error(
        "{found} exists but {root} does not: the root is lost. Restore it from a backup, or choose an empty folder (all \
         sidecars must then get the new bundle)",
        found = found.display(), root = root.display()
    )]
    Partial {
        /// What was found.
        found: PathBuf,
        /// What is missing.
        root: PathBuf,
    },
    /// A file is damaged, or not ours.
    #[error("{path}: {reason}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A root could not be made or restored.
    #[error("the root in {path}", path = path.display())]
    Signer {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: SignError,
    },
}

/// Reads the root of a locked folder, or makes one where there is no state at all. Then the public bundle lies beside it.
pub(crate) fn open(folder: &StateFolder, trust_domain: &TrustDomain, now: i64) -> Result<Signer, RootError> {
    let path = folder.root();
    let (signer, certificate) = if is_there(&path)? {
        load(&path, trust_domain)?
    } else {
        refuse_partial(folder)?;
        create(&path, trust_domain, now)?
    };
    publish_bundle(&folder.bundle(), &signer, &certificate)?;
    Ok(signer)
}

// Returns the signer with its certificate in PEM.
fn load(path: &Path, trust_domain: &TrustDomain) -> Result<(Signer, String), RootError> {
    let corrupt = |reason: &str| RootError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let metadata = fs::symlink_metadata(path).map_err(state::failed("look at", path))?;
    if !metadata.is_file() || metadata.len() > MAX_ROOT_BYTES {
        return Err(corrupt("it is not a root of ours"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(corrupt(&format!(
            "its mode is {mode:o}: others can reach the root's key; it must be 600"
        )));
    }
    let text = fs::read(path).map_err(state::failed("read", path))?;
    let text = Zeroizing::new(String::from_utf8(text).map_err(|_| corrupt("it is not PEM"))?);
    let (certificate, pem) = block(&text, "CERTIFICATE")
        .ok_or_else(|| corrupt("it holds no whole certificate; restore it from a backup"))?;
    let (key, _) = block(&text, "PRIVATE KEY")
        .ok_or_else(|| corrupt("it holds no whole private key; restore it from a backup"))?;
    let key = Zeroizing::new(key);
    let signer = Signer::restore(certificate, &key, trust_domain)
        .map_err(|source| RootError::Signer { path: path.to_owned(), source })?;
    Ok((signer, pem.to_owned()))
}

fn create(path: &Path, trust_domain: &TrustDomain, now: i64) -> Result<(Signer, String), RootError> {
    let (signer, certificate) = Signer::root(trust_domain, now)
        .map_err(|source| RootError::Signer { path: path.to_owned(), source })?;
    // One file for both, so that there is no moment at which one of them is missing.
    let text = Zeroizing::new(format!("{certificate}{}", *signer.key_pem()));
    state::write(path, text.as_bytes(), Readers::Owner).map_err(state::failed("write", path))?;
    // Aloud: where a folder was not mounted, this is not what its operator wanted.
    tracing::warn!(
        file = %path.display(),
        "a new root was made, because the state folder held none; sidecars trust it by the bundle.pem beside it"
    );
    Ok((signer, certificate))
}

// The bundle follows from the root, so that a crash between the two is mended; one of another root is not ours.
fn publish_bundle(path: &Path, root: &Signer, certificate: &str) -> Result<(), RootError> {
    if !is_there(path)? {
        let written = state::write(path, certificate.as_bytes(), Readers::Everyone);
        return Ok(written.map_err(state::failed("write", path))?);
    }
    let text = fs::read(path).map_err(state::failed("read", path))?;
    let ours = Pem::iter_from_buffer(&text).any(|pem| pem.is_ok_and(|pem| pem.contents == root.certificate));
    if ours {
        return Ok(());
    }
    Err(RootError::Corrupt {
        path: path.to_owned(),
        reason: "it does not hold the root beside it: one of the two is of another authority".to_owned(),
    })
}

fn refuse_partial(folder: &StateFolder) -> Result<(), RootError> {
    for found in [folder.bundle(), folder.join_tokens(), folder.last_good()] {
        if is_there(&found)? {
            return Err(RootError::Partial { found, root: folder.root() });
        }
    }
    Ok(())
}

// The DER of the one block with this label, and its text.
fn block<'a>(text: &'a str, label: &str) -> Option<(Vec<u8>, &'a str)> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----\n"));
    let from = text.get(text.find(&begin)?..)?;
    let block = from.get(..from.find(&end)? + end.len())?;
    let der = Pem::iter_from_buffer(block.as_bytes()).next()?.ok()?.contents;
    Some((der, block))
}

fn is_there(path: &Path) -> Result<bool, StateError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(state::failed("look at", path)(source)),
    }
}
