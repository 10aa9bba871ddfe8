//! How the user of a request is named in logs: not at all, or by a keyed hash, so that lines of one user can be told
//! together and nobody can be found by guessing names. The key is the operator's; another key is another set of names.

use std::{fs, io, path::Path};

use aws_lc_rs::hmac;

use crate::telemetry::hex;

/// Names users.
#[derive(Debug)]
pub struct Users(hmac::Key);

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read.
    #[error("read the key that hashes users' names")]
    Read(#[source] io::Error),
    /// It could be guessed.
    #[error(
        "the key that hashes users' names has {0} bytes, it needs {SHORTEST}: make one with `openssl rand 32`"
    )]
    Short(usize),
}

// Bytes; as many as a guess is worth.
const SHORTEST: usize = 16;
// Bytes of a name: enough to tell a million users apart.
const NAME: usize = 8;

impl Users {
    /// With the key in this file, as it stands.
    ///
    /// # Errors
    /// It cannot be read, or is shorter than 16 bytes.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let key = fs::read(file).map_err(KeyError::Read)?;
        if key.len() < SHORTEST {
            return Err(KeyError::Short(key.len()));
        }
        Ok(Self::of_key(&key))
    }

    /// With this key.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// 16 digits for a principal, `issuer/subject`.
    #[must_use]
    pub fn name(&self, principal: &str) -> String {
        let tag = hmac::sign(&self.0, principal.as_bytes());
        let mut first = [0; NAME];
        first.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        String::from_utf8_lossy(hex::of(first).as_flattened()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    fn users(key: &str) -> Result<Users, KeyError> {
        let file = env::temp_dir().join(format!("douane-users-{}-{}", process::id(), key.len()));
        fs::write(&file, key).unwrap();
        let users = Users::read(&file);
        fs::remove_file(&file).unwrap();
        users
    }

    #[test]
    fn a_user_has_one_name_for_each_key_and_it_tells_nothing() {
        let (one, other) = (users("sixteen bytes or").unwrap(), users("another key of more").unwrap());

        let name = one.name("https://login/ann");
        assert_eq!(name, one.name("https://login/ann"));
        assert_ne!(name, one.name("https://login/bob"));
        assert_ne!(name, other.name("https://login/ann"));
        assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_key_that_could_be_guessed_is_refused() {
        assert!(users("short").unwrap_err().to_string().contains("5 bytes"));
        assert!(matches!(Users::read(Path::new("/nowhere")), Err(KeyError::Read(_))));
    }
}
