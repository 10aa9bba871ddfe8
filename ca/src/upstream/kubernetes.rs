//! cert-manager above us: it signs our intermediates by a `CertificateRequest`, with whatever issuer its operator has set up.
//!
//! Each request is one object, which we remove when it is answered, or when we do not wait any longer. Knows not what is made of
//! the answer (`authority` checks it as every upstream's).

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Request;
use serde_json::{Value, json};
use tokio::{runtime::Handle, time};

use crate::{
    authority::{Elsewhere, Petition, Vouched, pem_block, pem_certificates},
    config::{CertManager, OWN_NAMESPACE},
    kubernetes::Client,
};

/// An issuer signs within seconds, if nobody has to approve by hand; a rotation stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// Each question to the API server.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A chain has a few KiB; what is larger is none.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Words of others, in an error.
const LONGEST_REASON: usize = 300;

/// An issuer of cert-manager's.
pub struct CertificateRequests {
    client: Client,
    settings: CertManager,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Signed(Vouched),
    Refused(String),
    Waiting,
}

impl CertificateRequests {
    /// The issuer that `settings` name, in the cluster of `client`.
    #[must_use]
    pub fn new(client: Client, settings: CertManager) -> Self {
        Self { client, settings }
    }

    /// Signs for the authority, which waits on threads that may block; the network is `runtime`'s.
    #[must_use]
    pub fn elsewhere(self, runtime: Handle) -> Elsewhere {
        let sign = move |petition: &Petition| runtime.block_on(self.sign(petition));
        Elsewhere { sign: Arc::new(sign), has_changed: Arc::new(|| false) }
    }

    async fn sign(&self, petition: &Petition) -> Result<Vouched, String> {
        let object = self.object(&petition.csr, petition.life);
        let made = self.ask(Request::post(path("")), Some(&object)).await?;
        let name = made.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err("the API server made a CertificateRequest without a name".to_owned());
        }
        let signed = time::timeout(PATIENCE, self.wait(&name)).await;
        // It is of no use to anybody any more; what cannot be removed, its operator sees.
        let _ = self.ask(Request::delete(path(&name)), None).await;
        signed.unwrap_or_else(|_| {
            let patience = PATIENCE.as_secs();
            Err(format!(
                "certificaterequest {OWN_NAMESPACE}/{name} was not answered within {patience} s: is the issuer {} ready, and \
                 are its requests approved by themselves?",
                self.settings.issuer.name
            ))
        })
    }

    async fn wait(&self, name: &str) -> Result<Vouched, String> {
        loop {
            let found = self.ask(Request::get(path(name)), None).await?;
            match standing(&found) {
                Standing::Signed(vouched) => return Ok(vouched),
                Standing::Refused(why) => {
                    return Err(format!("certificaterequest {OWN_NAMESPACE}/{name}: {why}"));
                }
                Standing::Waiting => time::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn object(&self, csr: &[u8], life: Duration) -> Value {
        let issuer = &self.settings.issuer;
        json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "CertificateRequest",
            "metadata": {"generateName": "douane-", "labels": {"app.kubernetes.io/part-of": "douane"}},
            "spec": {
                "request": STANDARD.encode(pem_block("CERTIFICATE REQUEST", csr)),
                "isCA": true,
                "duration": format!("{}s", life.as_secs()),
                // As the request itself says: cert-manager refuses where the two differ.
                "usages": ["cert sign", "crl sign"],
                "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
            },
        })
    }

    async fn ask(&self, request: http::request::Builder, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| error.to_string())?;
        let what = format!("{} {}", request.method(), request.uri().path());
        match time::timeout(LIMIT, self.client.request::<Value>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                Err(format!("{what}: {}; is cert-manager installed?", status.message))
            }
            Ok(Err(kube::Error::Api(status))) => Err(format!("{what}: {}", status.message)),
            Ok(Err(error)) => Err(format!("{what}: {error}")),
            Err(_) => Err(format!("{what}: no answer within {} s", LIMIT.as_secs())),
        }
    }
}

fn path(name: &str) -> String {
    let all = format!("/apis/cert-manager.io/v1/namespaces/{OWN_NAMESPACE}/certificaterequests");
    if name.is_empty() { all } else { format!("{all}/{name}") }
}

// What is refused stays refused; what is signed is ready.
fn standing(request: &Value) -> Standing {
    let conditions = request.pointer("/status/conditions").and_then(Value::as_array);
    let conditions = conditions.map_or(&[][..], Vec::as_slice);
    let said = |condition: &Value, field: &str| {
        condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    for condition in conditions {
        let (kind, status, reason) =
            (said(condition, "type"), said(condition, "status"), said(condition, "reason"));
        let is_refused = match kind.as_str() {
            "Denied" | "InvalidRequest" => status == "True",
            "Ready" => status == "False" && ["Failed", "Denied"].contains(&reason.as_str()),
            _ => false,
        };
        if is_refused {
            let message: String = said(condition, "message").chars().take(LONGEST_REASON).collect();
            let word = if kind == "Ready" { reason } else { kind };
            return Standing::Refused(format!("{word}: {message}"));
        }
    }
    let is_ready = conditions.iter().any(|it| said(it, "type") == "Ready" && said(it, "status") == "True");
    if !is_ready {
        return Standing::Waiting;
    }
    chain(request).map_or_else(Standing::Refused, Standing::Signed)
}

// The certificate, then who vouches for it; the root is named apart, or comes last.
fn chain(request: &Value) -> Result<Vouched, String> {
    let read = |field: &str| -> Result<Vec<Vec<u8>>, String> {
        let wrong = |what: &str| format!("its status.{field} {what}");
        let Some(text) = request.pointer(&format!("/status/{field}")).and_then(Value::as_str) else {
            return Ok(Vec::new());
        };
        if text.len() > MAX_ANSWER_BYTES {
            return Err(wrong("is too long"));
        }
        let pem = STANDARD.decode(text).map_err(|_| wrong("is no base64"))?;
        pem_certificates(&pem).map_err(wrong)
    };
    let mut chain = read("certificate")?;
    for der in read("ca")? {
        if !chain.contains(&der) {
            chain.push(der);
        }
    }
    let root = if chain.len() > 1 { chain.pop() } else { None };
    root.map(|root| Vouched { chain, root }).ok_or_else(|| {
        "it is ready and holds no chain up to a root (status.certificate, status.ca)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        pem_block("CERTIFICATE", der)
    }

    fn request(conditions: &Value, certificate: &str, ca: &str) -> Value {
        json!({"status": {
            "conditions": conditions,
            "certificate": STANDARD.encode(certificate),
            "ca": STANDARD.encode(ca),
        }})
    }

    #[test]
    fn a_request_is_signed_refused_or_waits_by_its_conditions() {
        let ready = || json!([{"type": "Approved", "status": "True"}, {"type": "Ready", "status": "True"}]);
        let (leaf, root) = (pem(b"leaf"), pem(b"root"));
        let vouched = |chain: &[&[u8]]| {
            Standing::Signed(Vouched {
                chain: chain.iter().map(|der| der.to_vec()).collect(),
                root: b"root".to_vec(),
            })
        };
        assert_eq!(standing(&request(&ready(), &leaf, &root)), vouched(&[b"leaf"]));
        let long = format!("{leaf}{}", pem(b"between"));
        assert_eq!(standing(&request(&ready(), &long, &root)), vouched(&[b"leaf", b"between"]));
        assert_eq!(standing(&request(&ready(), &format!("{leaf}{root}"), &root)), vouched(&[b"leaf"]));

        assert_eq!(standing(&json!({})), Standing::Waiting);
        let pending = json!([{"type": "Ready", "status": "False", "reason": "Pending"}]);
        assert_eq!(standing(&request(&pending, &leaf, &root)), Standing::Waiting);
        for (conditions, expected) in [
            (json!([{"type": "Denied", "status": "True", "message": "no"}]), "Denied: no"),
            (json!([{"type": "InvalidRequest", "status": "True", "message": "bad"}]), "InvalidRequest: bad"),
            (
                json!([{"type": "Ready", "status": "False", "reason": "Failed", "message": "away"}]),
                "Failed: away",
            ),
        ] {
            let refused = standing(&request(&conditions, &leaf, &root));
            assert_eq!(refused, Standing::Refused(expected.to_owned()));
        }
        for (certificate, ca) in [("", ""), (leaf.as_str(), ""), ("no PEM", root.as_str())] {
            let refused = standing(&request(&ready(), certificate, ca));
            assert!(matches!(refused, Standing::Refused(_)), "{refused:?}");
        }
    }
}
