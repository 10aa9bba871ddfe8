//! What is written down of one event. Fields that an event does not have are absent.

use serde::{Deserialize, Serialize};

use crate::peer::Origin;

/// Longer texts (a reason repeats what a caller sent) are cut: a line stays readable and bounded.
const MAX_TEXT_CHARS: usize = 512;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A certificate was signed; it left only after this line was on disk.
    Issued,
    /// A token (JWT-SVID) was signed.
    TokenIssued,
    /// Somebody got nothing.
    Refused,
    /// So many refusals came at once that they were counted instead of listed.
    RefusedMany,
    /// The authority's state changed: a rotation, a taint.
    Authority,
    /// A join token or an identity was revoked.
    Revoked,
    /// A file begins; `previous` is the hash of the last line of the one before.
    File,
    /// A line that a crash had left half written was removed.
    Healed,
    /// Lines that were here are missing or damaged: what follows is not proven to follow from what was before.
    Gap,
    /// Written by a newer version.
    #[serde(other)]
    Unknown,
}

/// One event. Made by [`Record::of`]; only what is known is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// SPIFFE ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Of the certificate, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Which root or intermediate it is about, or signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The end of the certificate's life, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// The kind of evidence that was presented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What the evidence is bound to: a pod, or a join token's registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
    /// SHA-256 of the certified key (SubjectPublicKeyInfo), hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where the caller came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// A fixed word for the kind of refusal, as in metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What a human reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many refusals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// File: the hash that its first line follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl Record {
    /// A record of `event` with nothing else in it yet.
    #[must_use]
    pub fn of(event: Event) -> Self {
        Self {
            event,
            identity: None,
            serial: None,
            authority: None,
            not_after: None,
            evidence: None,
            bound_to: None,
            key: None,
            peer: None,
            label: None,
            reason: None,
            count: None,
            previous: None,
        }
    }

    /// With what a human reads.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// With where the caller came from.
    #[must_use]
    pub fn from_peer(mut self, peer: Origin) -> Self {
        self.peer = Some(peer.to_string());
        self
    }

    /// Texts that others chose, cut to a bounded length.
    pub(super) fn bounded(mut self) -> Self {
        let texts = [&mut self.reason, &mut self.bound_to, &mut self.evidence, &mut self.label];
        for text in texts.into_iter().flatten() {
            if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
                text.truncate(end);
            }
        }
        self
    }
}
