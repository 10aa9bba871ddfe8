//! How one line follows from the last: `{"hash":"<hex>","record":{…}}`, where the hash is SHA-256 over the previous
//! line's hash (32 bytes) and the bytes of the record as they stand in the line. Pure.

use std::{fmt, str::FromStr, time::SystemTime};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::record::Record;

/// SHA-256.
const HASH_BYTES: usize = 32;
const BEFORE_HASH: &str = "{\"hash\":\"";
const BEFORE_RECORD: &str = "\",\"record\":";
const AFTER_RECORD: &str = "}";

/// The hash of a line; the first line of all follows from zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash([u8; HASH_BYTES]);

/// The last line of a log: how many lines there are, and its hash. Whoever holds a head finds every change of what was
/// written up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub(super) sequence: u64,
    pub(super) hash: Hash,
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Counts from 1 without a gap, over all files.
    pub(super) sequence: u64,
    /// RFC 3339.
    pub(super) time: String,
    #[serde(flatten)]
    pub(super) record: Record,
}

/// A line as it was read.
pub(super) struct Line<'a> {
    pub(super) hash: Hash,
    /// The bytes that were hashed.
    body: &'a str,
    pub(super) entry: Entry,
}

impl Hash {
    pub(super) const START: Self = Self([0; HASH_BYTES]);

    pub(super) fn follow(self, body: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.0);
        context.update(body);
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

impl Head {
    /// Before the first line.
    pub(super) const START: Self = Self { sequence: 0, hash: Hash::START };

    /// Writes `record` as the next line at the end of `lines`.
    pub(super) fn push(&mut self, record: Record, now: SystemTime, lines: &mut Vec<u8>) {
        let time = humantime::format_rfc3339_millis(now).to_string();
        let entry = Entry { sequence: self.sequence + 1, time, record: record.bounded() };
        // A record is plain texts and numbers: writing it cannot fail.
        let body = serde_json::to_vec(&entry).unwrap_or_default();
        self.sequence += 1;
        self.hash = self.hash.follow(&body);
        lines.extend_from_slice(BEFORE_HASH.as_bytes());
        lines.extend_from_slice(self.hash.to_string().as_bytes());
        lines.extend_from_slice(BEFORE_RECORD.as_bytes());
        lines.extend_from_slice(&body);
        lines.extend_from_slice(AFTER_RECORD.as_bytes());
        lines.push(b'\n');
    }
}

impl<'a> Line<'a> {
    /// Reads a line without its end.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.strip_prefix(BEFORE_HASH)?;
        let (hash, rest) = line.split_once(BEFORE_RECORD)?;
        let body = rest.strip_suffix(AFTER_RECORD)?;
        Some(Self { hash: hash.parse().ok()?, body, entry: serde_json::from_str(body).ok()? })
    }

    /// Is this what follows `previous`, unchanged?
    pub(super) fn follows(&self, previous: Hash) -> bool {
        previous.follow(self.body.as_bytes()) == self.hash
    }

    pub(super) fn head(&self) -> Head {
        Head { sequence: self.entry.sequence, hash: self.hash }
    }

    /// The record as it stands there.
    pub(super) fn body(&self) -> &'a str {
        self.body
    }
}

/// Not `NUMBER:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head is written NUMBER:HASH, as the log says it")]
pub struct NoHead;

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (sequence, hash) = text.trim().split_once(':').ok_or(NoHead)?;
        Ok(Self { sequence: sequence.parse().map_err(|_| NoHead)?, hash: hash.parse()? })
    }
}

impl FromStr for Hash {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let mut hash = [0; HASH_BYTES];
        let digits = text.as_bytes();
        let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
        if digits.len() != 2 * HASH_BYTES || !digits.iter().all(lower) {
            return Err(NoHead);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NoHead)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NoHead)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
