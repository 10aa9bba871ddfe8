//! A projected Kubernetes service account token proves a service account: issuer, audience, time and signature are
//! verified locally, the identity comes from the `kubernetes.io` claims and nothing else.
//!
//! Knows not where keys come from (`keys`), nor how a signature is verified (`seen`).

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    jwt::{Claims, Expected, Purpose},
};
use serde_json::Value;

use crate::attest::{error::AttestError, review::Binding};

/// What tokens must say, and whose identities they prove.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAccounts {
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) binding: Demanded,
}

/// Must a token be bound to a pod?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demanded {
    /// As it may.
    Nothing,
    /// To a pod, by name and uid.
    Pod,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: WorkloadId,
    /// The pod that the token is bound to, for the audit log.
    pub(crate) pod: Option<String>,
    /// The same for the API server's review, where one is demanded.
    pub(crate) binding: Option<Binding>,
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
        let pod = text(kubernetes, &["pod", "name"]);
        let binding = match (self.binding, pod, text(kubernetes, &["pod", "uid"])) {
            (Demanded::Nothing, _, _) => None,
            (Demanded::Pod, Some(pod), Some(uid)) if !pod.is_empty() && !uid.is_empty() => Some(Binding {
                namespace: namespace.to_owned(),
                account: name.to_owned(),
                pod: pod.to_owned(),
                uid: uid.to_owned(),
            }),
            (Demanded::Pod, _, _) => return Err(AttestError::Unbound),
        };
        Ok(Account {
            id: WorkloadId::new(&self.trust_domain, namespace, name)?,
            pod: pod.map(ToOwned::to_owned),
            binding,
        })
    }
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, name| value.get(name))?.as_str()
}
