//! A question to an external authorizer and what it may say, whichever protocol carries them.

use bytes::Bytes;
use douane_proto::{facts::Facts, id::WorkloadId, policy::HeaderChange};
use http::HeaderName;

use crate::refusal::Spoken;

/// Says whether the shown body is a part (Envoy's name).
pub(super) const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// What an authorizer said.
#[derive(Debug)]
pub(super) enum Said {
    /// It may pass.
    Allow {
        /// Changes of the request.
        request: Vec<HeaderChange>,
        /// Changes of the answer.
        answer: Vec<HeaderChange>,
    },
    /// It may not, and how to say so.
    Deny(Spoken),
}

/// The part of a body that one authorizer is shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) bytes: Bytes,
    pub(super) is_partial: bool,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) facts: &'a Facts,
    /// Whom the peer wants to reach: us.
    pub(super) local: &'a WorkloadId,
}
