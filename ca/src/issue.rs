//! Our own identity service on the wire: a request becomes a petition, and the office's answer a response.
//!
//! Knows not who gets a certificate and why (`office`).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::wire::{
    IssueRequest, IssueResponse, IssueTokenRequest, IssueTokenResponse, identity_server::Identity,
    issue_request::Evidence as WireEvidence,
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

    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        let IssueTokenRequest { audience, lifetime_seconds } = request.into_inner();
        let now = SystemTime::now();
        let token = self.office.token(&audience, lifetime(lifetime_seconds), &peer, now).await;
        let token = token.map_err(|refusal| refusal.status())?;
        Ok(Response::new(IssueTokenResponse {
            token: token.text,
            expires: token.expires,
            signed_at_ms: milliseconds(now),
        }))
    }
}

// 0 is no wish.
fn lifetime(seconds: u32) -> Option<Duration> {
    (seconds != 0).then(|| Duration::from_secs(seconds.into()))
}

fn petition(request: IssueRequest) -> Petition {
    let evidence = match request.evidence {
        Some(WireEvidence::ServiceAccountToken(token)) => Evidence::Token(token.into()),
        Some(WireEvidence::JoinToken(token)) => Evidence::JoinToken(token.into()),
        None => Evidence::Connection,
    };
    Petition { evidence, csr: request.csr, wanted: lifetime(request.lifetime_seconds) }
}

fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
