//! Keeps the cluster's word on our roots current: the caBundle by which API servers know the webhook, and the ConfigMap by which
//! each namespace's sidecars know the control plane on first contact. Both hold the old and the new root while one follows the
//! other, so that nobody meets a certificate that they cannot verify.
//!
//! Every replica does it: they write the same. Knows not what the webhook answers (`webhook`).

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use douane_proto::svid::TrustBundle;
use http::Request;
use serde_json::{Value, json};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{
    parts::{ROOT_CONFIG_MAP, ROOT_KEY},
    tree::Tree,
};
use crate::kubernetes::Client;

/// The name of both webhook configurations.
pub const WEBHOOKS: &str = "douane";
const CONFIGURATIONS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
/// A new namespace's first pods wait so long at most for their ConfigMap; who overwrites ours is corrected as soon.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An API server that is away is asked again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// One round; an API server that hangs shall not keep a new root back for ever.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
/// Namespaces of one page.
const PAGE: usize = 500;
/// More pages are no cluster's.
const MAX_PAGES: usize = 100;

/// Tells the cluster of our roots, from now on and when they change, until `stop`.
pub async fn keep_known(
    client: Client,
    mut bundle: watch::Receiver<Arc<TrustBundle>>,
    stop: CancellationToken,
) {
    let mut failing = None;
    loop {
        let roots = text(&bundle.borrow_and_update());
        let told = time::timeout(ROUND_LIMIT, tell(&client, &roots)).await;
        let failure = match told {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the API server does not answer in time".to_owned()),
        };
        if let Some(error) = failure.as_ref().filter(|error| failing.as_ref() != Some(*error)) {
            tracing::error!(error, "the cluster cannot be told of our roots; it is tried again");
        }
        let wait = if failure.is_some() { TRY_AGAIN } else { LOOK_EVERY };
        failing = failure;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = bundle.changed() => if changed.is_err() { return },
            () = time::sleep(wait) => {}
        }
    }
}

/// Tells it once.
///
/// # Errors
/// As the API server says.
pub async fn tell(client: &Client, roots: &str) -> Result<(), kube::Error> {
    for kind in CONFIGURATIONS {
        vouch(client, kind, roots).await?;
    }
    let named = format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{ROOT_CONFIG_MAP}");
    let holders = pages(client, &named).await?;
    let held = |namespace: &str| {
        holders.iter().any(|it| {
            said(it, &["metadata", "namespace"]) == Some(namespace)
                && said(it, &["data", ROOT_KEY]) == Some(roots)
        })
    };
    for namespace in
        pages(client, "/api/v1/namespaces?labelSelector=douane.io%2Finject%21%3Ddisabled").await?
    {
        let Some(name) = said(&namespace, &["metadata", "name"]) else { continue };
        // In one that is being removed nothing can be made.
        let ends = said(&namespace, &["status", "phase"]) == Some("Terminating");
        if !ends && !held(name) {
            write(client, name, roots).await?;
        }
    }
    Ok(())
}

/// The roots as PEM.
#[must_use]
pub fn text(bundle: &TrustBundle) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let roots = bundle.roots.iter().map(|root| pem::Pem::new("CERTIFICATE", root.as_slice()));
    pem::encode_many_config(&roots.collect::<Vec<_>>(), config)
}

// Webhooks have places and no keys: each patch says whom it means, and fails where they have moved.
async fn vouch(client: &Client, kind: &str, roots: &str) -> Result<(), kube::Error> {
    let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{WEBHOOKS}");
    let found: Tree = match client.request(get(&path)?).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error),
    };
    let wanted = STANDARD.encode(roots);
    let mut steps = Vec::new();
    for (place, webhook) in found.items_at("webhooks").iter().enumerate() {
        if said(webhook, &["clientConfig", "caBundle"]) != Some(&wanted) {
            let path = format!("/webhooks/{place}");
            steps.push(json!({"op": "test", "path": format!("{path}/name"), "value": webhook.get("name")}));
            let bundle = format!("{path}/clientConfig/caBundle");
            steps.push(json!({"op": "add", "path": bundle, "value": wanted}));
        }
    }
    if steps.is_empty() {
        return Ok(());
    }
    let patch = patch(&path, "application/json-patch+json", &Value::from(steps))?;
    client.request::<Value>(patch).await?;
    tracing::info!(kind, "API servers know our webhook by the roots of now");
    Ok(())
}

async fn write(client: &Client, namespace: &str, roots: &str) -> Result<(), kube::Error> {
    let path =
        format!("/api/v1/namespaces/{namespace}/configmaps/{ROOT_CONFIG_MAP}?fieldManager=douane&force=true");
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ROOT_CONFIG_MAP, "labels": {"app.kubernetes.io/part-of": "douane"}},
        "data": {ROOT_KEY: roots},
    });
    client.request::<Value>(patch(&path, "application/apply-patch+yaml", &map)?).await.map(drop)
}

async fn pages(client: &Client, path: &str) -> Result<Vec<Tree>, kube::Error> {
    let (mut all, mut next) = (Vec::new(), String::new());
    for _ in 0..MAX_PAGES {
        let more = if next.is_empty() { String::new() } else { format!("&continue={next}") };
        let page: Tree = client.request(get(&format!("{path}&limit={PAGE}{more}"))?).await?;
        all.extend_from_slice(page.items_at("items"));
        match said(&page, &["metadata", "continue"]).filter(|next| !next.is_empty()) {
            // Base64url by now; older servers' padding needs its escape.
            Some(more) => next = more.replace('=', "%3D").replace('+', "%2B").replace('/', "%2F"),
            None => break,
        }
    }
    Ok(all)
}

fn said<'a>(object: &'a Tree, path: &[&str]) -> Option<&'a str> {
    object.at(path).and_then(Tree::text)
}

fn get(path: &str) -> Result<Request<Vec<u8>>, kube::Error> {
    Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}

fn patch(path: &str, kind: &str, body: &Value) -> Result<Request<Vec<u8>>, kube::Error> {
    let request = Request::patch(path).header(http::header::CONTENT_TYPE, kind);
    request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)
}

#[cfg(test)]
mod tests;
