//! The issuer of service account tokens, which in a cluster is the API server: a key made at start, its public half as a
//! JWKS file for the control plane, and tokens in the layout of Kubernetes' projected ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet},
};
use serde_json::json;

/// Who issues the lab's tokens.
pub const ISSUER: &str = "https://lab.douane.io";
/// Whom they are for.
pub const AUDIENCE: &str = "douane-ca";
/// How long a token is good; it is replaced at half of that, as a kubelet does.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);

const KEY_ID: &str = "lab";

/// Signs tokens.
pub struct Issuer {
    key: EncodingKey,
}

/// Whom a token names.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Its service account.
    pub service_account: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// Its uid.
    pub pod_uid: &'a str,
}

impl Issuer {
    /// With a fresh key.
    ///
    /// # Errors
    /// No randomness.
    pub fn new() -> Result<Self> {
        let pair =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("make the issuer's key")?;
        Ok(Self { key: EncodingKey::from_ec_der(&pair.serialize_der()) })
    }

    /// The JWKS file.
    ///
    /// # Errors
    /// None for a key of ours.
    pub fn jwks(&self) -> Result<String> {
        let mut key =
            Jwk::from_encoding_key(&self.key, Algorithm::ES256).context("the issuer's public key")?;
        key.common.key_id = Some(KEY_ID.to_owned());
        Ok(serde_json::to_string(&JwkSet { keys: vec![key] })?)
    }

    /// A token, good from `now` on.
    ///
    /// # Errors
    /// None for a key of ours.
    pub fn token(&self, bearer: Bearer<'_>, now: SystemTime) -> Result<String> {
        let now = now.duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let account = bearer.service_account;
        let claims = json!({
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "sub": format!("system:serviceaccount:{}:{account}", bearer.namespace),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + TOKEN_LIFE).as_secs(),
            "kubernetes.io": {
                "namespace": bearer.namespace,
                "serviceaccount": { "name": account, "uid": format!("{}-{account}", bearer.namespace) },
                "pod": { "name": bearer.pod, "uid": bearer.pod_uid },
            },
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).context("sign a token")
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_token_verifies_with_the_key_of_the_jwks_file() {
        let issuer = Issuer::new().unwrap();
        let bearer = Bearer { namespace: "shop", service_account: "web", pod: "web-1", pod_uid: "u" };
        let token = issuer.token(bearer, SystemTime::now()).unwrap();
        let keys: JwkSet = serde_json::from_str(&issuer.jwks().unwrap()).unwrap();
        let key = DecodingKey::from_jwk(keys.find(KEY_ID).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);

        let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;

        assert_eq!(claims["kubernetes.io"]["serviceaccount"]["name"], "web");
    }
}
