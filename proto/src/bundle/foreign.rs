//! What a sidecar is told of another trust domain: its roots and the keys of its tokens, for its own identities only.

use std::sync::Arc;

use super::document::BundleDocument;
use crate::{id::TrustDomain, jwt::Keys, svid::SvidError, wire};

/// As many as a bundle document may have.
const MAX_ROOTS: usize = 32;
/// The keys of a document that is not refused.
const MAX_KEY_SET_BYTES: usize = 256 * 1024;
/// More trust domains than anybody federates with; each costs every sidecar memory.
const MAX_DOMAINS: usize = 64;

/// The bundle of another trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignBundle {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// DER; when empty, nobody of the domain is trusted.
    pub roots: Vec<Vec<u8>>,
    /// A JSON Web Key Set: what JWT-SVIDs of the domain are verified with.
    pub jwt_keys: Arc<str>,
}

impl ForeignBundle {
    /// What `document` says of `trust_domain`.
    #[must_use]
    pub fn of(trust_domain: TrustDomain, document: &BundleDocument) -> Self {
        Self { trust_domain, roots: document.roots.clone(), jwt_keys: document.key_set().into() }
    }

    /// The keys for its tokens, to verify with; `None` where there are none.
    #[must_use]
    pub fn keys(&self) -> Option<Keys> {
        Keys::parse(self.jwt_keys.as_bytes()).ok()
    }

    /// Reads what was pushed.
    ///
    /// # Errors
    /// [`SvidError::Bundle`]: too much of anything, an impossible name, or one that stands there twice.
    pub fn all(message: wire::FederatedBundles) -> Result<Arc<[Self]>, SvidError> {
        let count = message.bundles.len();
        if count > MAX_DOMAINS {
            return Err(SvidError::Bundle(format!("{count} federated trust domains are too many")));
        }
        let mut all: Vec<Self> = Vec::with_capacity(count);
        for bundle in message.bundles {
            let bundle = Self::try_from(bundle)?;
            if all.iter().any(|known| known.trust_domain == bundle.trust_domain) {
                return Err(SvidError::Bundle(format!("{} is federated twice", bundle.trust_domain)));
            }
            all.push(bundle);
        }
        Ok(all.into())
    }
}

impl TryFrom<wire::FederatedBundle> for ForeignBundle {
    type Error = SvidError;

    fn try_from(bundle: wire::FederatedBundle) -> Result<Self, SvidError> {
        let trust_domain =
            TrustDomain::parse(&bundle.trust_domain).map_err(|error| SvidError::Bundle(error.to_string()))?;
        if bundle.roots.len() > MAX_ROOTS || bundle.jwt_keys.len() > MAX_KEY_SET_BYTES {
            return Err(SvidError::Bundle(format!("the one of {trust_domain} is too large")));
        }
        Ok(Self { trust_domain, roots: bundle.roots, jwt_keys: bundle.jwt_keys.into() })
    }
}

impl From<&ForeignBundle> for wire::FederatedBundle {
    fn from(bundle: &ForeignBundle) -> Self {
        Self {
            trust_domain: bundle.trust_domain.to_string(),
            roots: bundle.roots.clone(),
            jwt_keys: bundle.jwt_keys.to_string(),
        }
    }
}
