//! JWT-SVIDs for the application: asked for with the sidecar's own certificate, which proves whose they are, checked, and
//! used again for the same audiences while half of their life is left.
//!
//! Knows not who wants one (`workload`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use douane_proto::{
    jwt::{self, JwtSvidError},
    svid::Identity,
    wire::{IssueTokenRequest, identity_client::IdentityClient},
};
use tokio::sync::{Semaphore, watch};

use super::clock::now;
use crate::tls::channel::{Authentication, ChannelError, ControlPlane};

/// One attempt, from connecting to the answer.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// An application that asks for many audiences at once must not make as many connections.
const AT_ONCE: usize = 4;
/// Audiences whose tokens are kept; the first to end goes first.
const MOST_KEPT: usize = 128;

/// Where tokens are had. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    control_plane: ControlPlane,
    identity: watch::Receiver<Arc<Identity>>,
    kept: Mutex<HashMap<Vec<String>, Kept>>,
    places: Semaphore,
}

// A token that verified.
#[derive(Clone)]
struct Kept {
    token: String,
    key_id: Option<String>,
    // Seconds since 1970.
    renew: u64,
    ends: u64,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No connection to the control plane.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The control plane refused.
    #[error("the control plane refuses a token: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// No answer in time.
    #[error("the control plane gave no answer in {} s", ATTEMPT_LIMIT.as_secs())]
    TooLate,
    /// What came back is no token of ours.
    #[error("the token that came back cannot be used: {0}")]
    Invalid(#[from] JwtSvidError),
    /// What came back is somebody else's.
    #[error("the token that came back is somebody else's")]
    NotMine,
}

impl Tokens {
    /// Asks `control_plane`, as whoever `identity` is.
    #[must_use]
    pub fn new(control_plane: ControlPlane, identity: watch::Receiver<Arc<Identity>>) -> Self {
        let places = Semaphore::new(AT_ONCE);
        Self(Arc::new(Inner { control_plane, identity, kept: Mutex::default(), places }))
    }

    /// A token for these audiences.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn fetch(&self, audiences: &[String]) -> Result<String, TokenError> {
        let mut audiences = audiences.to_vec();
        audiences.sort_unstable();
        audiences.dedup();
        // Never closed.
        let _place = self.0.places.acquire().await;
        let identity = Arc::clone(&self.0.identity.borrow());
        if let Some(kept) = self.0.find(&audiences, &identity) {
            return Ok(kept.token);
        }
        let attempt = tokio::time::timeout(ATTEMPT_LIMIT, self.0.ask(&audiences, &identity)).await;
        let kept = attempt.map_err(|_| TokenError::TooLate)??;
        let token = kept.token.clone();
        self.0.keep(audiences, kept);
        Ok(token)
    }
}

impl Inner {
    async fn ask(&self, audiences: &[String], identity: &Identity) -> Result<Kept, TokenError> {
        let channel = self.control_plane.connect(Some(identity), Authentication::Mutual).await?;
        let request = IssueTokenRequest { audience: audiences.to_vec(), lifetime_seconds: 0 };
        let answer = IdentityClient::new(channel).issue_token(request).await;
        let token = answer.map_err(|status| TokenError::Refused(Box::new(status)))?.into_inner().token;
        self.check(token, audiences, identity)
    }

    // As strictly as its audience will.
    fn check(&self, token: String, audiences: &[String], identity: &Identity) -> Result<Kept, TokenError> {
        let now = now().as_secs();
        let bundle = Arc::clone(&self.identity.borrow().bundle);
        let keys_of =
            |domain: &_| (*domain == bundle.trust_domain).then(|| jwt::keys_of(&bundle.jwt_keys)).flatten();
        let mut ends = now;
        for audience in audiences {
            let svid = jwt::verify_svid(&token, audience, keys_of, now)?;
            if svid.spiffe_id != identity.svid.leaf.id.to_string() {
                return Err(TokenError::NotMine);
            }
            ends = svid.claims.expires().unwrap_or(now);
        }
        let renew = now + ends.saturating_sub(now) / 2;
        Ok(Kept { key_id: jwt::key_id(&token), token, renew, ends })
    }

    // Not one whose key has left the bundle: its audiences would refuse it.
    fn find(&self, audiences: &[String], identity: &Identity) -> Option<Kept> {
        let kept = self.kept().get(audiences).cloned()?;
        let is_known = |id: &String| identity.bundle.jwt_keys.iter().any(|key| key.key_id == *id);
        (now().as_secs() < kept.renew && kept.key_id.as_ref().is_some_and(is_known)).then_some(kept)
    }

    fn keep(&self, audiences: Vec<String>, kept: Kept) {
        let now = now().as_secs();
        let mut all = self.kept();
        all.retain(|_, kept| kept.ends > now);
        if all.len() >= MOST_KEPT
            && let Some(first) = all.iter().min_by_key(|(_, kept)| kept.ends).map(|(key, _)| key.clone())
        {
            all.remove(&first);
        }
        all.insert(audiences, kept);
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Vec<String>, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Kept {
    // Never the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("ends", &self.ends).finish_non_exhaustive()
    }
}
