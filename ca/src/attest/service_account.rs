//! A projected Kubernetes service account token proves a service account: issuer, audience, time and signature are
//! verified locally, the identity comes from the `kubernetes.io` claims and nothing else.
//!
//! Knows not where keys come from (`keys`), nor how a signature is verified (`seen`).

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    jwt::{Claims, Expected, Purpose},
};
use serde_json::Value;

use crate::attest::error::AttestError;

/// What tokens must say, and whose identities they prove.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAccounts {
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) trust_domain: TrustDomain,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: WorkloadId,
    /// The pod that the token is bound to, for the audit log.
    pub(crate) pod: Option<String>,
}

impl ServiceAccounts {
    /// What a token must say of itself.
    pub(crate) fn expected(&self) -> Expected<'_> {
        Expected { issuer: Some(&self.issuer), audiences: &self.audiences, purpose: Purpose::Attestation }
    }

    /// Who a token speaks for that is as expected.
    pub(crate) fn account(&self, claims: &Claims) -> Result<Account, AttestError> {
        let kubernetes = claims.get("kubernetes.io").ok_or(AttestError::Claim("kubernetes.io"))?;
        let namespace =
            text(kubernetes, &["namespace"]).ok_or(AttestError::Claim("kubernetes.io.namespace"))?;
        let name = text(kubernetes, &["serviceaccount", "name"])
            .ok_or(AttestError::Claim("kubernetes.io.serviceaccount.name"))?;
        // Kubernetes writes the account twice; where the two differ, somebody else made the token.
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        if claims.get("sub").is_some() && claims.subject() != Some(&subject) {
            return Err(AttestError::Claim("sub"));
        }
        Ok(Account {
            id: WorkloadId::new(&self.trust_domain, namespace, name)?,
            pod: text(kubernetes, &["pod", "name"]).map(ToOwned::to_owned),
        })
    }
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, name| value.get(name))?.as_str()
}
