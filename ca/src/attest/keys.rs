//! The keys that sign service account tokens, live: read from a file that may change, or fetched from a URL. What was
//! good last stays in use when a later reading fails.
//!
//! Knows not what the keys verify (`service_account`), nor how a URL is fetched (`fetch`).

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use douane_proto::jwt::Keys;
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

use crate::fetch::{self, Chosen, Origin, Terms};

/// A file is small and local: looking often costs nothing.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// Kubernetes announces signing keys long before it uses them.
const URL_EVERY: Duration = Duration::from_secs(300);
/// However many unknown keys are presented, the origin is asked so often only.
const URL_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// A key set has a few KiB. The operator of the control plane names the URL.
const TERMS: Terms<'_> =
    Terms { bytes: 1024 * 1024, time: Duration::from_secs(5), chosen: Chosen::ByConfiguration };

/// Where keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// A JSON Web Key Set in a file.
    File(PathBuf),
    /// A JSON Web Key Set behind a URL.
    Url(Origin),
}

/// Keys that are kept up to date by [`LiveKeys::run`].
pub struct LiveKeys {
    source: KeySource,
    current: RwLock<Option<Read>>,
    asked: Notify,
}

// Keys, and the bytes that they were read from.
struct Read {
    keys: Arc<Keys>,
    bytes: Vec<u8>,
}

impl LiveKeys {
    /// Keys from `source`; none until the first reading.
    #[must_use]
    pub fn new(source: KeySource) -> Self {
        Self { source, current: RwLock::new(None), asked: Notify::new() }
    }

    /// Reads once; an error leaves what was good last.
    ///
    /// # Errors
    /// The text says what failed, for the log.
    pub async fn refresh(&self) -> Result<(), String> {
        let json = match &self.source {
            KeySource::File(path) => fetch::file(path).await?,
            KeySource::Url(origin) => fetch::url(origin, TERMS).await?,
        };
        // The same bytes stay the same value: what is known of it stays known.
        if self.read().as_ref().is_some_and(|read| read.bytes == json) {
            return Ok(());
        }
        let keys = Arc::new(Keys::parse(&json).map_err(|error| error.to_string())?);
        let read = Read { keys, bytes: json.to_vec() };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok(())
    }

    /// Keeps the keys up to date until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let (every, at_most) = match &self.source {
            KeySource::File(_) => (FILE_EVERY, FILE_EVERY),
            KeySource::Url(_) => (URL_EVERY, URL_AT_MOST_EVERY),
        };
        let mut failing = None;
        loop {
            let outcome = self.refresh().await.err();
            if outcome != failing {
                match &outcome {
                    Some(error) => {
                        tracing::error!(%error, "the keys of service account tokens cannot be read; the last good ones stay");
                    }
                    None => tracing::info!("the keys of service account tokens can be read again"),
                }
                failing = outcome;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pause(at_most, every, failing.is_some()) => {}
            }
        }
    }

    // Long when all is well and nobody asks, short otherwise.
    async fn pause(&self, at_most: Duration, every: Duration, failing: bool) {
        time::sleep(at_most).await;
        if failing || every <= at_most {
            return;
        }
        let _ = time::timeout(every.saturating_sub(at_most), self.asked.notified()).await;
    }

    /// What was good last; `None` before the first reading.
    pub(crate) fn current(&self) -> Option<Arc<Keys>> {
        self.read().as_ref().map(|read| Arc::clone(&read.keys))
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Read>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody presented a key that is not known: it is worth looking earlier than planned.
    pub(crate) fn ask_refresh(&self) {
        self.asked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"one",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

    #[tokio::test]
    async fn the_last_good_keys_stay_when_the_file_breaks() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("jwks.json");
        let keys = LiveKeys::new(KeySource::File(path.clone()));
        assert!(keys.refresh().await.is_err() && keys.current().is_none());
        std::fs::write(&path, KEYS).unwrap();
        keys.refresh().await.unwrap();
        let large = " ".repeat(2 * 1024 * 1024);
        for broken in ["{", "", r#"{"keys":[]}"#, &large] {
            std::fs::write(&path, broken).unwrap();
            assert!(keys.refresh().await.is_err());
            assert!(keys.current().is_some());
        }
    }

    #[tokio::test]
    async fn only_other_bytes_make_another_key_set() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("jwks.json");
        std::fs::write(&path, KEYS).unwrap();
        let keys = LiveKeys::new(KeySource::File(path.clone()));
        keys.refresh().await.unwrap();
        let first = keys.current().unwrap();
        keys.refresh().await.unwrap();
        assert!(Arc::ptr_eq(&first, &keys.current().unwrap()));
        std::fs::write(&path, format!("{KEYS} ")).unwrap();
        keys.refresh().await.unwrap();
        assert!(!Arc::ptr_eq(&first, &keys.current().unwrap()));
    }
}
