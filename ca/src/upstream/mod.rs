//! Somebody else's authority above ours, over the network: Vault's and OpenBao's PKI engine signs our intermediates by
//! `sign-intermediate`, and keeps the root's key.
//!
//! Of a cluster cert-manager does the same (`kubernetes`).
//!
//! Knows their API, and that of the log-in by a Kubernetes service account; not what is signed below (`authority`).

mod kubernetes;

use std::{path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::{
    authority::{Elsewhere, Petition, Vouched, pem_block, pem_certificates},
    config::{Vault, VaultLogin},
    fetch::{self, Origin, Posted, Reply},
};

pub use kubernetes::CertificateRequests;

/// From dialling to the last byte, for each of log-in and signature.
const LIMIT: Duration = Duration::from_secs(10);
/// A certificate with its chain has under 20 KiB.
const MAX_REPLY_BYTES: usize = 256 * 1024;
/// A token is a line.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// A PKI engine of Vault or OpenBao.
pub struct PkiEngine {
    settings: Vault,
    base: Origin,
}

#[derive(Deserialize)]
struct Signed {
    data: SignedData,
}

#[derive(Deserialize)]
struct SignedData {
    certificate: String,
    issuing_ca: Option<String>,
    #[serde(default)]
    ca_chain: Vec<String>,
}

impl PkiEngine {
    /// The engine that `settings` name, behind `base` (their URL, and who vouches for it).
    #[must_use]
    pub fn new(settings: Vault, base: Origin) -> Self {
        Self { settings, base }
    }

    /// Signs for the authority, which waits on threads that may block; the network is `runtime`'s.
    #[must_use]
    pub fn elsewhere(self, runtime: Handle) -> Elsewhere {
        let sign = move |petition: &Petition| runtime.block_on(self.sign(petition));
        // It is asked at half of an intermediate's life, and when an operator rotates the intermediate.
        Elsewhere { sign: Arc::new(sign), has_changed: Arc::new(|| false) }
    }

    async fn sign(&self, petition: &Petition) -> Result<Vouched, String> {
        let token = self.token().await?;
        let wanted = json!({
            "csr": pem_block("CERTIFICATE REQUEST", &petition.csr),
            "common_name": petition.id,
            // Subject, SPIFFE ID and key usage as we ask for them.
            "use_csr_values": true,
            "max_path_length": 0,
            "format": "pem",
            "ttl": format!("{}s", petition.life.as_secs()),
        });
        let mount = self.settings.mount.trim_matches('/');
        let path = match &self.settings.issuer {
            Some(issuer) => format!("/v1/{mount}/issuer/{issuer}/sign-intermediate"),
            None => format!("/v1/{mount}/root/sign-intermediate"),
        };
        let reply = self.post(&path, &wanted, Some(&token)).await?;
        let signed: Signed = serde_json::from_slice(&reply.body)
            .map_err(|error| format!("{path}: its answer makes no sense: {error}"))?;
        chain_of(&signed.data).map_err(|reason| format!("{path}: {reason}"))
    }

    async fn token(&self) -> Result<Zeroizing<String>, String> {
        match &self.settings.login {
            VaultLogin::Token { file } => secret(file),
            VaultLogin::Kubernetes { role, mount, token_file } => {
                let jwt = secret(token_file)?;
                let path = format!("/v1/auth/{}/login", mount.trim_matches('/'));
                let reply = self.post(&path, &json!({ "role": role, "jwt": *jwt }), None).await?;
                let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
                token
                    .map(|token| Zeroizing::new(token.to_owned()))
                    .ok_or_else(|| format!("{path}: it gave no token"))
            }
        }
    }

    async fn post(
        &self,
        path: &str,
        body: &Value,
        token: Option<&Zeroizing<String>>,
    ) -> Result<Reply, String> {
        let base = self.base.url.to_string();
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let url = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
        let origin = Origin { url, tls: self.base.tls.clone() };
        let mut headers = vec![("x-vault-request", "true".to_owned())];
        headers.extend(token.map(|token| ("x-vault-token", token.to_string())));
        headers.extend(self.settings.namespace.as_ref().map(|name| ("x-vault-namespace", name.clone())));
        let reply =
            fetch::post(&origin, Posted { headers, body: body.to_string() }, (MAX_REPLY_BYTES, LIMIT))
                .await?;
        if reply.status.is_success() {
            return Ok(reply);
        }
        let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let errors = said.get("errors").and_then(Value::as_array).into_iter().flatten();
        let errors: Vec<&str> = errors.filter_map(Value::as_str).collect();
        Err(format!("{}: it answered {}: {}", origin.url, reply.status, errors.join("; ")))
    }
}

// The engine's own chain ends with its root, if it was told of it.
fn chain_of(signed: &SignedData) -> Result<Vouched, String> {
    let read = |text: &str| {
        pem_certificates(text.as_bytes()).map_err(|reason| format!("a certificate of its answer: {reason}"))
    };
    let mut chain = read(&signed.certificate)?;
    chain.truncate(1);
    let above = if signed.ca_chain.is_empty() { signed.issuing_ca.as_slice() } else { &signed.ca_chain };
    for text in above {
        for der in read(text)? {
            if !chain.contains(&der) {
                chain.push(der);
            }
        }
    }
    let root = if chain.len() > 1 { chain.pop() } else { None };
    root.map(|root| Vouched { chain, root })
        .ok_or_else(|| "its answer holds no chain up to a root".to_owned())
}

fn secret(file: &Path) -> Result<Zeroizing<String>, String> {
    let wrong = |reason: String| format!("{}: {reason}", file.display());
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > MAX_TOKEN_BYTES {
        return Err(wrong(format!("{length} bytes are no token")));
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?);
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        token => Ok(Zeroizing::new(token.to_owned())),
    }
}
