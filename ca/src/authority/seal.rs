//! Private keys at rest: as they are (the file is then all that protects them), or sealed with AES-256-GCM under a key
//! that lies elsewhere. Each is bound to its place, so that no sealed key can be put where another belongs.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// AES-256.
const KEY_BYTES: usize = 32;

/// What private keys are sealed with.
pub(crate) enum Seal {
    /// Nothing: whoever reads the file has them.
    Open,
    /// The key in this file.
    Sealed { key: RandomizedNonceKey, file: PathBuf },
}

/// Why a sealed key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be used.
    #[error("the seal's key file {path}: {reason}", path = path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no key.
    #[error("its keys are sealed: name the file with the seal's key as rootSeal.keyFile")]
    NoKey,
    /// Another key, or changed bytes.
    #[error("its keys are sealed with another key than that in {path}", path = .0.display())]
    OtherKey(PathBuf),
    /// What is sealed cannot be read.
    #[error("a sealed key is no base64")]
    Malformed,
    /// The kernel or the library refuses.
    #[error("sealing failed")]
    Failed,
}

/// A private key as it lies in the state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) enum Boxed {
    /// PKCS#8, base64.
    Plain(String),
    /// Nonce, ciphertext and tag, base64.
    Sealed(String),
}

impl Seal {
    /// The seal whose key lies in `file`: 32 bytes that only its owner may read.
    pub(crate) fn from_file(file: &Path) -> Result<Self, SealError> {
        let wrong = |reason: String| SealError::KeyFile { path: file.to_owned(), reason };
        let read = || -> io::Result<(u32, Zeroizing<Vec<u8>>)> {
            let mode = fs::metadata(file)?.permissions().mode() & 0o777;
            Ok((mode, Zeroizing::new(fs::read(file)?)))
        };
        let (mode, key) = read().map_err(|error| wrong(error.to_string()))?;
        if mode & 0o077 != 0 {
            return Err(wrong(format!(
                "its mode is {mode:o}: others can read the key; it must be 600 or 400"
            )));
        }
        if key.len() != KEY_BYTES {
            let advice = "make one by `head -c 32 /dev/urandom`";
            return Err(wrong(format!("it has {} bytes, a key has {KEY_BYTES}; {advice}", key.len())));
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| SealError::Failed)?;
        Ok(Self::Sealed { key, file: file.to_owned() })
    }

    /// Is what it makes of a key safe to be read?
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Sealed { .. })
    }

    pub(crate) fn close(&self, secret: &[u8], place: &str) -> Result<Boxed, SealError> {
        let Self::Sealed { key, .. } = self else {
            return Ok(Boxed::Plain(STANDARD.encode(secret)));
        };
        let mut sealed = secret.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Failed)?;
        let bytes = [nonce.as_ref().as_slice(), &sealed].concat();
        Ok(Boxed::Sealed(STANDARD.encode(bytes)))
    }

    pub(crate) fn open(&self, boxed: &Boxed, place: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (key, file, text) = match (self, boxed) {
            (_, Boxed::Plain(text)) => {
                return Ok(Zeroizing::new(
                    STANDARD.decode(text.as_bytes()).map_err(|_| SealError::Malformed)?,
                ));
            }
            (Self::Open, Boxed::Sealed(_)) => return Err(SealError::NoKey),
            (Self::Sealed { key, file }, Boxed::Sealed(text)) => (key, file, text),
        };
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| SealError::Malformed)?);
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(SealError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = key
            .open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| SealError::OtherKey(file.clone()))?;
        Ok(Zeroizing::new(opened.to_vec()))
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        let (Self::Plain(text) | Self::Sealed(text)) = self;
        zeroize::Zeroize::zeroize(text);
    }
}

impl std::fmt::Debug for Seal {
    // Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Sealed { file, .. } => f.debug_tuple("Sealed").field(file).finish(),
        }
    }
}
