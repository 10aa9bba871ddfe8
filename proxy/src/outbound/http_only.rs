//! Where receivers want HTTP, as their refusals of opaque streams have told: there none is opened for a silent client.
//!
//! Knows not what is done instead (`words`).

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{outbound::resolve::Candidate, refusal::Refusal};

/// So long no stream is opened to hear who speaks first where the receiver wants HTTP; then its law may have changed.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Ports that want HTTP, remembered at once.
const MAX_REMEMBERED: usize = 1024;

/// Where receivers have refused bytes because their law needs HTTP.
#[derive(Debug, Default)]
pub(super) struct HttpOnly(RefCell<HashMap<SocketAddr, Instant>>);

impl HttpOnly {
    /// Does one of them want HTTP?
    pub(super) fn is_known_of(&self, candidates: &[Candidate]) -> bool {
        let known = self.0.borrow();
        candidates
            .iter()
            .any(|candidate| known.get(&candidate.address).is_some_and(|since| since.elapsed() < REMEMBERED))
    }

    /// Learns it from the receiver's refusal; was it one of these?
    pub(super) fn learn(&self, refusal: &Refusal) -> bool {
        let Refusal::PeerRefused { address, status: StatusCode::UPGRADE_REQUIRED } = refusal else {
            return false;
        };
        let mut known = self.0.borrow_mut();
        known.retain(|_, since| since.elapsed() < REMEMBERED);
        if known.len() < MAX_REMEMBERED {
            known.insert(*address, Instant::now());
        }
        true
    }
}
