//! A token of any OpenID Connect issuer proves the identity that its verified claims are mapped to: by conditions on
//! claims, and by two names in which one claim may be filled in.
//!
//! Strict: what no rule takes is refused, and what a claim fills in must be a name as it stands; nothing is bent into one.
//! Knows not where keys come from (`keys`).

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    jwt::{Claims, Expected, Purpose},
};
use serde_json::Value;

use crate::{
    attest::error::AttestError,
    config::{ClaimName, IdentityRule},
};

/// A DNS label, and a service account's name.
const MAX_NAME: usize = 63;

/// What tokens must say, and whose identities they prove.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) identities: Vec<IdentityRule>,
    pub(crate) trust_domain: TrustDomain,
}

impl Accounts {
    /// What a token must say of itself.
    pub(crate) fn expected(&self) -> Expected<'_> {
        Expected { issuer: Some(&self.issuer), audiences: &self.audiences, purpose: Purpose::Attestation }
    }

    /// Who a token speaks for that is as expected; also what the audit log says of it.
    pub(crate) fn account(&self, claims: &Claims) -> Result<(WorkloadId, Option<String>), AttestError> {
        let subject = claims.subject().map(|subject| format!("{}#{subject}", self.issuer));
        Ok((self.identity(claims)?, subject))
    }

    // The first rule that takes the token says who it is.
    fn identity(&self, claims: &Claims) -> Result<WorkloadId, AttestError> {
        let taken =
            |rule: &&IdentityRule| rule.conditions.iter().all(|(claim, values)| says(claims, claim, values));
        let rule = self.identities.iter().find(taken).ok_or(AttestError::Unmapped)?;
        let namespace = name(&rule.namespace, claims)?;
        let account = name(&rule.service_account, claims)?;
        Ok(WorkloadId::new(&self.trust_domain, &namespace, &account)?)
    }
}

fn says(claims: &Claims, claim: &str, values: &[String]) -> bool {
    let is_one = |value: &Value| match value {
        Value::String(text) => values.contains(text),
        Value::Bool(_) | Value::Number(_) => values.contains(&value.to_string()),
        _ => false,
    };
    match find(claims, claim) {
        Some(Value::Array(list)) => list.iter().any(is_one),
        Some(value) => is_one(value),
        None => false,
    }
}

fn name(template: &ClaimName, claims: &Claims) -> Result<String, AttestError> {
    let filled = match template {
        ClaimName::Fixed(name) => name.clone(),
        ClaimName::Filled { before, claim, after } => {
            let value = find(claims, claim).and_then(Value::as_str);
            let value = value.ok_or_else(|| AttestError::UnmappedClaim(claim.clone()))?;
            let name = format!("{before}{value}{after}");
            if !is_name(value) || !is_name(&name) {
                return Err(AttestError::UnmappedClaim(claim.clone()));
            }
            name
        }
    };
    Ok(filled)
}

// Names such as `https://example.org/role` have dots that lead nowhere.
fn find<'a>(claims: &'a Claims, claim: &str) -> Option<&'a Value> {
    claims.get(claim).or_else(|| claims.at(claim.split('.')))
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn accounts(rules: &str) -> Accounts {
        let identities: Vec<IdentityRule> = serde_saphyr::from_str(rules).unwrap();
        Accounts {
            issuer: "https://ci".to_owned(),
            audiences: Vec::new(),
            identities,
            trust_domain: TrustDomain::parse("cluster.local").unwrap(),
        }
    }

    fn identity(accounts: &Accounts, claims: Value) -> Result<String, String> {
        let Value::Object(claims) = claims else { panic!() };
        let id = accounts.identity(&Claims::from(claims));
        id.map(|id| format!("{}/{}", id.namespace(), id.service_account())).map_err(|error| error.to_string())
    }

    const RULES: &str = "
- where: {repository: [shop/web, shop/orders], ref: refs/heads/main, protected: 'true'}
  namespace: ci
  serviceAccount: 'deploy-{job.name}'
- where: {groups: admins}
  namespace: '{team}'
  serviceAccount: admin
";

    #[test]
    fn t1_an_identity_follows_from_verified_claims_by_the_first_rule_that_takes_them() {
        let accounts = accounts(RULES);
        let build = json!({"repository": "shop/web", "ref": "refs/heads/main", "protected": true,
            "job": {"name": "eu"}});
        assert_eq!(identity(&accounts, build).unwrap(), "ci/deploy-eu");
        let admin = json!({"groups": ["staff", "admins"], "team": "shop"});
        assert_eq!(identity(&accounts, admin).unwrap(), "shop/admin");
    }

    #[test]
    fn t1_what_no_rule_takes_and_what_is_no_name_is_refused() {
        let accounts = accounts(RULES);
        for claims in [
            json!({}),
            json!({"repository": "shop/web", "ref": "refs/heads/main"}),
            json!({"repository": "shop/evil", "ref": "refs/heads/main", "protected": true, "job": {"name": "eu"}}),
            json!({"repository": {"0": "shop/web"}, "ref": "refs/heads/main", "protected": true}),
            json!({"groups": "admins-not"}),
        ] {
            let refused = identity(&accounts, claims).unwrap_err();
            assert!(refused.contains("no rule"), "{refused}");
        }
        for team in [
            json!("kube/system"),
            json!("Shop"),
            json!(""),
            json!(7),
            json!(null),
            json!("-a"),
            json!("a".repeat(64)),
            json!("a.b"),
            json!("a\u{0}"),
        ] {
            let refused = identity(&accounts, json!({"groups": "admins", "team": team})).unwrap_err();
            assert!(refused.contains("\"team\""), "{refused}");
        }
    }
}
