//! What each request must carry before anybody looks at it: the header by which a request shows that its sender chose
//! its headers (Workload Endpoint 3: a forged request from elsewhere cannot), a uid that is served, and a bearable rate.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::HeaderMap;
use tonic::Status;

use crate::limits::rate::Rate;

/// Exactly so, and once.
const HEADER: (&str, &[u8]) = ("workload.spiffe.io", b"true");
/// Requests of all clients together; a library makes a handful in an hour. What they cost must not be felt by traffic.
const PER_SECOND: u32 = 100;
/// SPIFFE libraries know these words and wait longer before they ask again.
pub(super) const NO_IDENTITY: &str = "no identity issued";

/// Who is served, and how often.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    uids: Option<Arc<[u32]>>,
    rate: Arc<Mutex<Rate>>,
}

impl Guard {
    /// Serves these uids; everybody, when none are named.
    pub(super) fn new(uids: Option<Arc<[u32]>>) -> Self {
        Self { uids, rate: Arc::new(Mutex::new(Rate::new(PER_SECOND))) }
    }

    /// May this request be looked at?
    pub(super) fn admit(&self, headers: &HeaderMap, uid: u32, now: Instant) -> Result<(), Status> {
        let mut values = headers.get_all(HEADER.0).iter();
        let first = values.next();
        if first.is_none_or(|value| value.as_bytes() != HEADER.1) || values.next().is_some() {
            return Err(Status::invalid_argument(
                "the metadata \"workload.spiffe.io: true\" must be sent, exactly so and once",
            ));
        }
        if self.uids.as_ref().is_some_and(|uids| !uids.contains(&uid)) {
            return Err(Status::permission_denied(format!(
                "{NO_IDENTITY}: uid {uid} is not served here (--workload-uids)"
            )));
        }
        if !self.rate.lock().unwrap_or_else(PoisonError::into_inner).admits(now) {
            return Err(Status::unavailable("too many requests at once, come back"));
        }
        Ok(())
    }
}
