//! One certificate: a fresh key that never leaves memory, a request that carries no name, the evidence of who we are,
//! and our own checks of what came back. When the next one is due, `renew` knows.

use std::{path::PathBuf, sync::Arc, time::Duration};

use douane_proto::{
    hint,
    id::WorkloadId,
    svid::{Identity, Svid, SvidError, TrustBundle},
    wire::{self, identity_client::IdentityClient, issue_request::Evidence},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use super::clock::now;
use crate::tls::{
    self, TlsError,
    channel::{Authentication, ChannelError, ControlPlane},
};

/// One attempt, from connecting to the answer. An authority that hangs must not hang us.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// A token is a few KiB; more is not read.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// Clocks that differ by more are worth a warning: short certificates suffer first.
const MAX_SKEW: Duration = Duration::from_secs(5);

/// An authority that asks for more would cost us our certificate.
const LONGEST_HINT: Duration = Duration::from_secs(60);

/// Asks the control plane for certificates.
#[derive(Debug)]
pub struct Issuer {
    control_plane: ControlPlane,
    namespace: String,
    token_file: PathBuf,
    lifetime: Option<Duration>,
    // Who we are, once the first answer said so: a later answer for somebody else is refused.
    pinned: Option<WorkloadId>,
    // The join token that we came by. It is worth nothing any more: our certificate renews itself.
    spent: Option<Zeroizing<String>>,
    // The last attempt with our certificate broke: perhaps the authority does not take it, so the next goes without.
    shy: bool,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The token cannot be read.
    #[error("read the token {}: {reason}", path.display())]
    Token {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// We came by a join token, and were away for too long.
    #[error(
        "our certificate has ended and the join token in {} is spent: put a new one there (`douane ca token create`)",
        .0.display()
    )]
    Ended(PathBuf),
    /// No connection to the control plane.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The control plane refused.
    #[error("the control plane refuses a certificate: {} ({:?})", .0.message(), .0.code())]
    Refused(Box<tonic::Status>),
    /// No answer in time.
    #[error("the control plane gave no answer in {} s", ATTEMPT_LIMIT.as_secs())]
    TooLate,
    /// No key or request could be made.
    #[error("make a key and a request: {0}")]
    Request(#[from] rcgen::Error),
    /// The answer holds no valid certificate or bundle.
    #[error("the certificate that came back is invalid: {0}")]
    Invalid(#[from] SvidError),
    /// The answer is for somebody else.
    #[error("the certificate that came back is for {got}, expected was {expected}")]
    NotMine {
        /// Whom it is for.
        got: WorkloadId,
        /// Who we are.
        expected: String,
    },
    /// The answer's key, chain and bundle do not fit together.
    #[error("the certificate that came back cannot be used: {0}")]
    Unusable(#[from] TlsError),
    /// The answer lacks its bundle, or holds one of another trust domain.
    #[error("the trust bundle that came back is missing or of another trust domain")]
    Bundle,
}

impl IssueError {
    /// Does the authority know us and say no? Anything else may come right by itself.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Refused(status) = self else { return false };
        matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated)
    }

    /// How long the authority asks us to wait, when it has too much to do.
    #[must_use]
    pub fn hint(&self) -> Option<Duration> {
        let Self::Refused(status) = self else { return None };
        Some(hint::delay(status.details())?.min(LONGEST_HINT))
    }
}

impl Issuer {
    /// An issuer for a pod of `namespace`, which proves itself by the token in `token_file`.
    #[must_use]
    pub fn new(
        control_plane: ControlPlane,
        namespace: String,
        token_file: PathBuf,
        lifetime: Option<Duration>,
    ) -> Self {
        Self { control_plane, namespace, token_file, lifetime, pinned: None, spent: None, shy: false }
    }

    /// Another that asks for the same workload in the same way.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self {
            control_plane: self.control_plane.clone(),
            namespace: self.namespace.clone(),
            token_file: self.token_file.clone(),
            lifetime: self.lifetime,
            pinned: self.pinned.clone(),
            spent: self.spent.clone(),
            shy: false,
        }
    }

    /// A new identity, one generation after `held`.
    ///
    /// # Errors
    /// [`IssueError`]; nothing changed then.
    pub async fn issue(&mut self, held: Option<&Identity>) -> Result<Identity, IssueError> {
        let shown = held.filter(|held| !self.shy && is_valid(held));
        let outcome = tokio::time::timeout(ATTEMPT_LIMIT, self.attempt(held, shown))
            .await
            .unwrap_or(Err(IssueError::TooLate));
        // A certificate that is not taken breaks the connection, only after the handshake is done.
        self.shy = shown.is_some() && matches!(&outcome, Err(error) if !error.is_refusal());
        let (identity, by) = outcome?;
        if let Some(Evidence::JoinToken(token)) = by {
            self.spent = Some(Zeroizing::new(token));
        }
        self.pinned.get_or_insert_with(|| identity.svid.leaf.id.clone());
        Ok(identity)
    }

    // `shown`: what we show on the connection; it says how urgent it is, and renews what came by a join token.
    async fn attempt(
        &self,
        held: Option<&Identity>,
        shown: Option<&Identity>,
    ) -> Result<(Identity, Option<Evidence>), IssueError> {
        if self.spent.is_some() && shown.is_some() {
            match self.ask(held, Authentication::Mutual, None).await {
                Ok(identity) => return Ok((identity, None)),
                // Ended by an operator, who perhaps put a new token in the place of the old one.
                Err(error) if !error.is_refusal() || self.fresh_evidence().is_err() => return Err(error),
                Err(_) => {}
            }
        }
        let evidence = self.fresh_evidence()?;
        let authentication = if shown.is_some() { Authentication::Mutual } else { Authentication::Server };
        let identity = self.ask(held, authentication, Some(evidence.clone())).await?;
        Ok((identity, Some(evidence)))
    }

    async fn ask(
        &self,
        held: Option<&Identity>,
        authentication: Authentication,
        evidence: Option<Evidence>,
    ) -> Result<Identity, IssueError> {
        // The token travels only after the server has proved to be the control plane.
        let channel = self.control_plane.connect(held, authentication).await?;
        let (request, key) = new_request()?;
        let request = wire::IssueRequest {
            csr: request,
            lifetime_seconds: self
                .lifetime
                .map_or(0, |life| u32::try_from(life.as_secs()).unwrap_or(u32::MAX)),
            evidence,
        };
        let answer = IdentityClient::new(channel)
            .issue(request)
            .await
            .map_err(|status| IssueError::Refused(Box::new(status)))?
            .into_inner();
        warn_of_skew(answer.signed_at_ms);
        self.check(answer, key, held)
    }

    // What the file holds, unless we have spent it already.
    fn fresh_evidence(&self) -> Result<Evidence, IssueError> {
        match self.read_evidence()? {
            Evidence::JoinToken(token) if self.spent.as_ref().is_some_and(|spent| **spent == token) => {
                Err(IssueError::Ended(self.token_file.clone()))
            }
            evidence => Ok(evidence),
        }
    }

    fn read_evidence(&self) -> Result<Evidence, IssueError> {
        let fail = |reason: String| IssueError::Token { path: self.token_file.clone(), reason };
        let text = std::fs::read_to_string(&self.token_file).map_err(|error| fail(error.to_string()))?;
        let token = text.trim();
        match token.len() {
            0 => Err(fail("it is empty".to_owned())),
            1..=MAX_TOKEN_BYTES => Ok(evidence(token)),
            more => Err(fail(format!("{more} bytes are too many"))),
        }
    }

    fn check(
        &self,
        answer: wire::IssueResponse,
        key: Zeroizing<Vec<u8>>,
        held: Option<&Identity>,
    ) -> Result<Identity, IssueError> {
        let offered = TrustBundle::try_from(answer.bundle.ok_or(IssueError::Bundle)?)?;
        if offered.trust_domain != *self.control_plane.id.trust_domain() {
            return Err(IssueError::Bundle);
        }
        let svid = Svid::parse(answer.chain, key)?;
        self.check_name(&svid.leaf.id)?;
        let identity = Identity {
            svid,
            bundle: newest(held.map(|identity| &identity.bundle), offered),
            generation: held.map_or(1, |identity| identity.generation + 1),
        };
        tls::check_identity(identity.clone())?;
        Ok(identity)
    }

    fn check_name(&self, got: &WorkloadId) -> Result<(), IssueError> {
        let expected = match &self.pinned {
            Some(pinned) if pinned == got => return Ok(()),
            Some(pinned) => pinned.to_string(),
            None => {
                let domain = self.control_plane.id.trust_domain();
                if got.trust_domain() == domain && got.namespace() == self.namespace {
                    return Ok(());
                }
                format!("a workload of {domain} in namespace {}", self.namespace)
            }
        };
        Err(IssueError::NotMine { got: got.clone(), expected })
    }
}

/// The newer of two bundles of one trust domain, by (epoch, sequence): an old one, replayed, changes nothing.
#[must_use]
pub fn newest(held: Option<&Arc<TrustBundle>>, offered: TrustBundle) -> Arc<TrustBundle> {
    match held {
        Some(held) if held.place() >= offered.place() => Arc::clone(held),
        _ => Arc::new(offered),
    }
}

// A JWT has three parts between dots; a join token has none.
fn evidence(token: &str) -> Evidence {
    if token.split('.').count() == 3 {
        Evidence::ServiceAccountToken(token.to_owned())
    } else {
        Evidence::JoinToken(token.to_owned())
    }
}

fn is_valid(held: &Identity) -> bool {
    let now = i64::try_from(now().as_secs()).unwrap_or(i64::MAX);
    (held.svid.leaf.not_before..held.svid.leaf.not_after).contains(&now)
}

fn new_request() -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), rcgen::Error> {
    let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    // No names: the authority would not read them.
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?.der().to_vec();
    let der = Zeroizing::new(key.serialize_der());
    zeroize::Zeroize::zeroize(&mut key);
    Ok((request, der))
}

fn warn_of_skew(signed_at_ms: i64) {
    let now = now();
    let skew = Duration::from_millis(signed_at_ms.abs_diff(now.as_millis().try_into().unwrap_or(i64::MAX)));
    if signed_at_ms != 0 && skew > MAX_SKEW {
        tracing::warn!(skew_seconds = skew.as_secs(), "our clock and the control plane's differ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use douane_proto::id::TrustDomain;

    fn bundle(epoch: u64, sequence: u64) -> TrustBundle {
        let trust_domain = TrustDomain::parse("cluster.local").unwrap();
        TrustBundle { epoch, sequence, ..TrustBundle::of_roots(trust_domain, Vec::new()) }
    }

    #[test]
    fn an_older_bundle_never_replaces_a_newer_one() {
        for (held, offered, expected) in [
            ((1, 5), (1, 4), (1, 5)),
            ((1, 5), (1, 6), (1, 6)),
            ((1, 5), (2, 0), (2, 0)),
            ((2, 0), (1, 9), (2, 0)),
        ] {
            let held = Arc::new(bundle(held.0, held.1));
            let kept = newest(Some(&held), bundle(offered.0, offered.1));
            assert_eq!((kept.epoch, kept.sequence), expected);
        }
    }

    #[test]
    fn a_token_with_three_parts_is_a_service_account_token_and_any_other_a_join_token() {
        assert!(matches!(evidence("a.b.c"), Evidence::ServiceAccountToken(_)));
        assert!(matches!(evidence("0123456789abcdef"), Evidence::JoinToken(_)));
    }

    #[test]
    fn each_request_has_a_key_of_its_own() {
        let (first, second) = (new_request().unwrap(), new_request().unwrap());
        assert_ne!(first.1, second.1);
        assert_ne!(first.0, second.0);
    }
}
