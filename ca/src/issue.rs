//! Our own identity service on the wire: a request becomes a petition, and the office's answer a response.
//!
//! Knows not who gets a certificate and why (`office`).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::wire::{
    IssueRequest, IssueResponse, identity_server::Identity, issue_request::Evidence as WireEvidence,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    attest::Evidence,
    office::{Office, Petition},
    peer::Peer,
};

/// A token of 16 KiB and a request of 8 KiB, with room for the frame.
pub(crate) const MAX_REQUEST_BYTES: usize = 32 * 1024;

/// Answers `douane.v1.Identity`.
pub struct IdentityService {
    office: Arc<Office>,
}

impl IdentityService {
    /// A service in front of `office`.
    #[must_use]
    pub fn new(office: Arc<Office>) -> Self {
        Self { office }
    }
}

#[async_trait]
impl Identity for IdentityService {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        let now = SystemTime::now();
        let issued = self.office.answer(petition(request.into_inner()), &peer, now).await;
        let issued = issued.map_err(|refusal| refusal.status())?;
        let bundle = self.office.bundle().borrow().clone();
        Ok(Response::new(IssueResponse {
            chain: issued.chain,
            bundle: Some((&*bundle).into()),
            signed_at_ms: milliseconds(now),
        }))
    }
}

fn petition(request: IssueRequest) -> Petition {
    let evidence = match request.evidence {
        Some(WireEvidence::ServiceAccountToken(token)) => Evidence::Token(token.into()),
        Some(WireEvidence::JoinToken(token)) => Evidence::JoinToken(token.into()),
        None => Evidence::Connection,
    };
    let wanted =
        (request.lifetime_seconds != 0).then(|| Duration::from_secs(request.lifetime_seconds.into()));
    Petition { evidence, csr: request.csr, wanted }
}

fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
