//! Who holds a certificate of ours, and which trust bundle each of them is known to have taken over.
//!
//! Discovery tells what sidecars report, the authority tells what it signs; rotation waits for whoever lags. Knows
//! neither streams nor certificates. Bounded: of more holders than that, the rest counts as one, until the last of their
//! certificates has ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Holders known by name; ten times as many sidecars as we serve.
const MOST_HOLDERS: usize = 200_000;
/// Whom we cannot name any more.
const OTHERS: &str = "(others)";

/// Somebody who lives by a certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `namespace/pod`, or the identity where there is no pod.
    pub name: String,
    /// Does it have a discovery stream now?
    pub connected: bool,
    /// The highest (epoch, sequence) of a bundle that it is known to use.
    pub knows: (u64, u64),
    /// The end of its last certificate, seconds since 1970.
    pub until: i64,
    /// Key identifiers of the authorities that vouch for that; empty: unknown.
    pub authorities: Vec<Vec<u8>>,
}

/// All holders that one control plane knows of.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<String, Record>,
    highest_seen: (u64, u64),
}

#[derive(Debug, Default)]
struct Record {
    streams: usize,
    knows: (u64, u64),
    until: i64,
    authorities: Vec<Vec<u8>>,
}

/// What somebody was given or says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// (epoch, sequence) of the bundle.
    pub bundle: (u64, u64),
    /// The end of the certificate, seconds since 1970.
    pub until: i64,
    /// Key identifiers of the authorities that vouch for it.
    pub authorities: Vec<Vec<u8>>,
}

/// A stream is open as long as this lives.
#[derive(Debug)]
pub struct Attending {
    holders: Holders,
    name: String,
}

impl Holder {
    /// Could it be broken by a change: is it connected, or may it come back with a valid certificate?
    #[must_use]
    pub fn counts(&self, now: i64) -> bool {
        self.connected || self.until > now
    }

    /// Does the authority with this key vouch for its certificate? When in doubt, yes.
    #[must_use]
    pub fn lives_by(&self, key_id: &[u8]) -> bool {
        self.authorities.is_empty() || self.authorities.iter().any(|id| id == key_id)
    }
}

impl Holders {
    /// A certificate was signed for `name`, and handed out with the bundle.
    pub fn given(&self, name: &str, held: Held) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.by_name.len() >= MOST_HOLDERS && !known.by_name.contains_key(name);
        let record = known.by_name.entry(if full { OTHERS } else { name }.to_owned()).or_default();
        if full {
            // One for many: as far behind as the last of them, and as long.
            *record = Record { until: record.until.max(held.until), ..Record::default() };
            return;
        }
        // While a stream is open, the sidecar's own word on what it uses counts.
        if record.streams == 0 {
            record.knows = held.bundle;
        }
        record.until = held.until;
        record.authorities = held.authorities;
    }

    /// A sidecar has opened a stream, and has not yet said what it uses.
    #[must_use]
    pub fn attend(&self, name: &str) -> Attending {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_name.entry(name.to_owned()).or_default().streams += 1;
        Attending { holders: self.clone(), name: name.to_owned() }
    }

    /// Everybody that counts at `now`, and the highest place of a bundle that was reported; forgets the rest.
    #[must_use]
    pub fn all(&self, now: i64) -> (Vec<Holder>, (u64, u64)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_name.retain(|_, record| record.streams > 0 || record.until > now);
        let holder = |(name, record): (&String, &Record)| Holder {
            name: name.clone(),
            connected: record.streams > 0,
            knows: record.knows,
            until: record.until,
            authorities: record.authorities.clone(),
        };
        let mut all: Vec<Holder> = known.by_name.iter().map(holder).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        (all, known.highest_seen)
    }
}

impl Attending {
    /// What the sidecar says that it uses now.
    pub fn uses(&self, held: Held) {
        let mut known = self.holders.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.highest_seen = known.highest_seen.max(held.bundle);
        if let Some(record) = known.by_name.get_mut(&self.name) {
            *record = Record {
                streams: record.streams,
                knows: held.bundle,
                until: held.until,
                authorities: held.authorities,
            };
        }
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        let mut known = self.holders.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = known.by_name.get_mut(&self.name) {
            record.streams = record.streams.saturating_sub(1);
        }
    }
}
