//! An identity from any SPIFFE Workload API (SPIRE's agent, for one) instead of our own authority: it chooses keys, lives
//! and renewals; we check what comes as strictly as an answer of our own, and keep the last good one.
//!
//! Roots come from there alone: what our control plane pushes speaks for its own authority, not for this one.

use std::{sync::Arc, time::Duration};

use douane_proto::{
    id::WorkloadId,
    svid::{Identity, Svid, SvidError, TrustBundle},
};
use spiffe::{TrustDomain, X509Context, X509Source, X509Svid};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{
    clock::now,
    renew::{FIRST_CAP, LOOK_AGAIN, Outcome, RETRY_FROM, URGENT},
};
use crate::{
    backoff::Backoff,
    tls::{self, TlsError},
};

/// For a first answer; the library goes on asking by itself, but would say nothing of it.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// An endpoint that ends its streams at once must not keep us busy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Whom we are to be, and who says it.
#[derive(Debug, Clone)]
pub struct Expected {
    /// `unix:///…`.
    pub endpoint: String,
    /// Of the mesh.
    pub trust_domain: douane_proto::id::TrustDomain,
    /// Of the pod.
    pub namespace: String,
}

/// An identity that follows its source.
#[derive(Debug)]
pub struct Followed {
    expected: Expected,
    source: X509Source,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("ask {endpoint}: {reason}")]
    Ask { endpoint: String, reason: String },
    #[error("{0} gave nothing in time")]
    TooLate(String),
    #[error(
        "{endpoint} has no identity of a workload of {domain} in namespace {namespace} for us, but {got:?}"
    )]
    NotMine { endpoint: String, domain: String, namespace: String, got: Vec<String> },
    #[error("there is no trust bundle of our own trust domain")]
    NoBundle,
    #[error("the certificate is invalid: {0}")]
    Invalid(#[from] SvidError),
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] TlsError),
}

/// The first identity; tries until there is one.
pub async fn first(expected: Expected, told: &impl Fn(Outcome)) -> (Identity, Followed) {
    let mut failures = 0;
    loop {
        let error = match attempt(&expected).await {
            Ok((identity, source)) => {
                say(&identity);
                told(Outcome::Renewed);
                return (identity, Followed { expected, source });
            }
            Err(error) => error,
        };
        failures += 1;
        let wait = Backoff { base: RETRY_FROM, cap: FIRST_CAP }.wait(failures, rand::random());
        tracing::warn!(%error, retry_ms = wait.as_millis(), "no identity");
        told(Outcome::Failed);
        tokio::time::sleep(wait).await;
    }
}

impl Followed {
    /// Takes over what the source says, for ever.
    pub async fn run(mut self, identity: watch::Sender<Arc<Identity>>, told: impl Fn(Outcome)) {
        let mut updates = self.source.updated();
        loop {
            tokio::select! {
                changed = updates.changed() => match changed {
                    Ok(_) => self.take(&identity, &told),
                    // The library has given up; what is held serves meanwhile.
                    Err(_) => match attempt(&self.expected).await {
                        Ok((_, source)) => {
                            self.source = source;
                            updates = self.source.updated();
                            self.take(&identity, &told);
                        }
                        Err(error) => tracing::warn!(%error, "the source of our identity is lost"),
                    },
                },
                () = tokio::time::sleep(LOOK_AGAIN) => warn_of_end(&identity.borrow(), &self.expected),
            }
            tokio::time::sleep(SHORTEST_PAUSE).await;
        }
    }

    fn take(&self, identity: &watch::Sender<Arc<Identity>>, told: &impl Fn(Outcome)) {
        let held = Arc::clone(&identity.borrow());
        match read(&self.source, &self.expected, Some(&held)) {
            Ok(next) => {
                say(&next);
                told(Outcome::Renewed);
                identity.send_replace(Arc::new(next));
            }
            Err(error) => {
                tracing::error!(%error, "what the source of our identity says is unusable, the last good one stays");
                told(Outcome::Failed);
            }
        }
    }
}

async fn attempt(expected: &Expected) -> Result<(Identity, X509Source), SourceError> {
    let endpoint = || expected.endpoint.clone();
    let built = X509Source::builder().endpoint(&expected.endpoint).build();
    let built = tokio::time::timeout(ATTEMPT_LIMIT, built).await;
    let source = built.map_err(|_| SourceError::TooLate(endpoint()))?;
    let source =
        source.map_err(|error| SourceError::Ask { endpoint: endpoint(), reason: error.to_string() })?;
    let identity = read(&source, expected, None)?;
    Ok((identity, source))
}

fn read(source: &X509Source, expected: &Expected, held: Option<&Identity>) -> Result<Identity, SourceError> {
    let context = source.x509_context().map_err(|error| SourceError::Ask {
        endpoint: expected.endpoint.clone(),
        reason: error.to_string(),
    })?;
    let (id, svid) = pick(&context, expected, held)?;
    let chain: Vec<_> = svid.cert_chain().iter().map(|one| one.as_bytes().to_vec()).collect();
    let roots = roots(&context, &expected.trust_domain)?;
    let (last, generation) = match held {
        Some(held) if held.svid.chain == chain => (held.bundle.sequence, held.generation),
        Some(held) => (held.bundle.sequence, held.generation + 1),
        None => (0, 1),
    };
    let bundle = match held {
        Some(held) if held.bundle.roots == roots => Arc::clone(&held.bundle),
        // A history of our own: the source counts none, and sends each state whole.
        _ => Arc::new(TrustBundle {
            sequence: last + 1,
            ..TrustBundle::of_roots(id.trust_domain().clone(), roots)
        }),
    };
    let svid = Svid::parse(chain, Zeroizing::new(svid.private_key().as_bytes().to_vec()))?;
    let identity = Identity { svid, bundle, generation };
    tls::check_identity(identity.clone())?;
    Ok(identity)
}

// Of several identities the first that the pod may have; later always the same.
fn pick(
    context: &X509Context,
    expected: &Expected,
    held: Option<&Identity>,
) -> Result<(WorkloadId, Arc<X509Svid>), SourceError> {
    let fits = |id: &WorkloadId| match held {
        Some(held) => *id == held.svid.leaf.id,
        None => *id.trust_domain() == expected.trust_domain && id.namespace() == expected.namespace,
    };
    let mut got = Vec::new();
    for svid in context.svids() {
        let text = svid.spiffe_id().to_string();
        match text.parse() {
            Ok(id) if fits(&id) => return Ok((id, Arc::clone(svid))),
            _ => got.push(text),
        }
    }
    Err(SourceError::NotMine {
        endpoint: expected.endpoint.clone(),
        domain: expected.trust_domain.to_string(),
        namespace: expected.namespace.clone(),
        got,
    })
}

fn roots(context: &X509Context, domain: &douane_proto::id::TrustDomain) -> Result<Vec<Vec<u8>>, SourceError> {
    let domain = TrustDomain::new(domain.as_str()).map_err(|_| SourceError::NoBundle)?;
    let bundle = context.bundle_set().get(&domain).ok_or(SourceError::NoBundle)?;
    Ok(bundle.authorities().iter().map(|root| root.as_bytes().to_vec()).collect())
}

fn say(identity: &Identity) {
    let leaf = &identity.svid.leaf;
    let left = left(identity).as_secs();
    tracing::info!(id = %leaf.id, generation = identity.generation, seconds_left = left, "identity from its source");
}

fn warn_of_end(identity: &Identity, expected: &Expected) {
    let leaf = &identity.svid.leaf;
    let life = Duration::from_secs(u64::try_from(leaf.not_after - leaf.not_before).unwrap_or(0));
    let left = left(identity);
    if left < life.mul_f64(URGENT) {
        let (seconds_left, source) = (left.as_secs(), &expected.endpoint);
        tracing::warn!(seconds_left, source, "our certificate ends soon, and its source gives no other");
    }
}

fn left(identity: &Identity) -> Duration {
    Duration::from_secs(u64::try_from(identity.svid.leaf.not_after).unwrap_or(0)).saturating_sub(now())
}
