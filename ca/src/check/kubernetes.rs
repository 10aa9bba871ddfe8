//! Reads what `check` looks at from a Kubernetes API, by the rights of whoever asks. Nothing is changed: the one pod that is
//! created is a dry run.
//!
//! Knows not what the answers mean.

use std::time::{Duration, UNIX_EPOCH};

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time;

use super::{
    Stage,
    facts::{Facts, Kind, Right, at, text},
};
use crate::{inject::INJECT, kubernetes::Client};

/// Each question.
const LIMIT: Duration = Duration::from_secs(20);
/// Objects of one page.
const PAGE: usize = 500;
/// More pages are no cluster's.
const MAX_PAGES: usize = 100;
/// Where everything of a kind is.
const LISTS: [(Kind, &str); 9] = [
    (Kind::Namespaces, "/api/v1/namespaces"),
    (Kind::Nodes, "/api/v1/nodes"),
    (Kind::Definitions, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
    (Kind::Mutating, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"),
    (Kind::Validating, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
    (Kind::Deployments, "/apis/apps/v1/namespaces/douane-system/deployments"),
    (Kind::Leases, "/apis/coordination.k8s.io/v1/namespaces/douane-system/leases"),
    (Kind::Roots, "/api/v1/configmaps?fieldSelector=metadata.name%3Ddouane-root"),
    (Kind::Pods, "/api/v1/pods"),
];
/// What is looked at before an installation.
const BEFORE: [Kind; 3] = [Kind::Namespaces, Kind::Nodes, Kind::Definitions];
const POLICIES: [(&str, &str); 3] = [
    ("AuthorizationPolicy", "authorizationpolicies"),
    ("PeerAuthentication", "peerauthentications"),
    ("RequestAuthentication", "requestauthentications"),
];
/// What `douane install` prints, by group and resource.
const INSTALLED: [(&str, &str); 13] = [
    ("", "namespaces"),
    ("", "configmaps"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apps", "deployments"),
    ("coordination.k8s.io", "leases"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
];

/// Reads it; `told` hears what comes next.
pub async fn read(client: &Client, stage: Stage, told: impl Fn(&str)) -> Facts {
    told("the API server");
    let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let mut facts = Facts { now: i64::try_from(now).unwrap_or(0), ..Facts::default() };
    match limited(version(client)).await {
        Ok((version, server_time)) => {
            facts.version = Some(Ok(version));
            facts.server_time = server_time;
        }
        Err(why) => {
            facts.version = Some(Err(why));
            return facts;
        }
    }
    for (kind, path) in LISTS.iter().filter(|(kind, _)| stage == Stage::Running || BEFORE.contains(kind)) {
        told(path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default());
        facts.objects.insert(*kind, limited(pages(client, path)).await);
    }
    match stage {
        Stage::Before => {
            told("rights");
            for (group, resource) in INSTALLED {
                let Ok(allowed) = limited(may(client, group, resource)).await else { continue };
                facts.rights.push(Right { verb: "create", group, resource, allowed });
            }
        }
        Stage::Running => {
            told("policies");
            facts.objects.insert(Kind::Policies, policies(client).await);
            told("the webhook");
            facts.rehearsal = Some(limited(rehearse(client)).await);
        }
    }
    facts
}

async fn limited<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match time::timeout(LIMIT, question).await {
        Ok(answer) => answer.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            other => format!("{:#}", anyhow::Error::from(other)),
        }),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

// With the time that the server's answer bears.
async fn version(client: &Client) -> Result<(String, Option<i64>), kube::Error> {
    let asked = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
    let answer = client.send(asked).await?;
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).and_then(moment);
    let said: Value = client.request(get("/version")?).await?;
    Ok((text(&said, &["gitVersion"]).to_owned(), date))
}

async fn pages(client: &Client, path: &str) -> Result<Vec<Value>, kube::Error> {
    let (mut all, mut next) = (Vec::new(), String::new());
    let glue = if path.contains('?') { '&' } else { '?' };
    for _ in 0..MAX_PAGES {
        let more = if next.is_empty() { String::new() } else { format!("&continue={next}") };
        let mut page: Value = client.request(get(&format!("{path}{glue}limit={PAGE}{more}"))?).await?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            all.extend(items);
        }
        match text(&page, &["metadata", "continue"]) {
            "" => break,
            more => next = more.replace('=', "%3D").replace('+', "%2B").replace('/', "%2F"),
        }
    }
    Ok(all)
}

// Of kinds that nobody defined there are none.
async fn policies(client: &Client) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for (kind, plural) in POLICIES {
        let listed = async {
            match pages(client, &format!("/apis/security.istio.io/v1/{plural}")).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
                listed => listed,
            }
        };
        for mut policy in limited(listed).await? {
            if let Some(fields) = policy.as_object_mut() {
                // Objects of a list do not say it.
                fields.insert("kind".to_owned(), Value::from(kind));
            }
            all.push(policy);
        }
    }
    Ok(all)
}

async fn may(client: &Client, group: &str, resource: &str) -> Result<bool, kube::Error> {
    let attributes = json!({"verb": "create", "group": group, "resource": resource});
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let said: Value =
        client.request(post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)?).await?;
    Ok(*at(&said, &["status", "allowed"]) == Value::Bool(true))
}

// What the API server would store.
async fn rehearse(client: &Client) -> Result<Value, kube::Error> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "douane-check-", "labels": {INJECT: "enabled"}},
        "spec": {"containers": [{"name": "check", "image": "check:0"}]},
    });
    client.request(post("/api/v1/namespaces/default/pods?dryRun=All", &pod)?).await
}

fn get(path: &str) -> Result<Request<Vec<u8>>, kube::Error> {
    Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}

fn post(path: &str, body: &Value) -> Result<Request<Vec<u8>>, kube::Error> {
    let request = Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)
}

// `Mon, 23 Nov 2026 13:38:29 GMT` (RFC 9110 5.6.7), seconds since 1970.
fn moment(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = date.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    let written = format!("{year}-{month:02}-{day}T{time}Z");
    let since = humantime::parse_rfc3339(&written).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(moment("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for wrong in ["", "Sunday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
