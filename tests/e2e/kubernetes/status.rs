//! What authors are told of their policies, where they stand: by a real API server, beside other writers, and without end.

use douane_tests::{kubernetes::Cluster, wait::eventually};
use serde_json::{Value, json};

use super::plane::{LIMIT, Plane, Pod, installed, namespaces, run_pod};

const LEDGER: Pod<'_> = Pod {
    namespace: "shop",
    name: "ledger-1",
    app: "ledger",
    labels: ", douane.io/inject: enabled",
    sidecar: true,
    port: ("http", 8080),
    addresses: &["10.77.0.10"],
};
const GOOD: &str = "authorizationpolicy/good";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

// Waits until this is said of the object, for its newest generation; answers with the object.
fn told(cluster: &Cluster, object: &str, kind: &str, (status, reason): (&str, &str)) -> Value {
    eventually(&format!("{object}: {kind} {status} {reason}"), LIMIT, || {
        let seen = cluster.get("shop", object);
        let said = condition(&seen, kind);
        let is_so = said["status"] == status && said["reason"] == reason;
        let is_of_now = said["observedGeneration"] == seen["metadata"]["generation"];
        if is_so && is_of_now { Ok(seen) } else { Err(seen["status"].to_string()) }
    })
}

fn version(cluster: &Cluster, object: &str) -> Value {
    cluster.get("shop", object)["metadata"]["resourceVersion"].clone()
}

fn message(object: &Value, kind: &str) -> String {
    condition(object, kind)["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn authors_are_told_what_became_of_their_policies_and_told_once() {
    let cluster = installed();
    namespaces(&cluster, &[("shop", "")]);
    run_pod(&cluster, &LEDGER);
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: ledger, namespace: shop}\n\
         spec: {selector: {app: ledger}, ports: [{name: http, port: 80, targetPort: 8080}]}\n",
    );
    let bad = "{action: ALLOW, rules: [{from: [{source: {ipBlocks: ['10.0.0.0/33']}}]}]}";
    cluster.apply(
        &[
            policy("good", "{selector: {matchLabels: {app: ledger}}, rules: [{to: [{operation: {ports: ['8080']}}]}]}"),
            policy("odd", "{rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}]}]}"),
            policy("nobody", "{selector: {matchLabels: {app: legder}}}"),
            policy("bad", bad),
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: shop}\n\
             spec: {mtls: {mode: STRICT}}\n---\n"
                .to_owned(),
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: mine, namespace: shop}\n\
             spec: {hosts: [ledger.shop.svc.cluster.local], addresses: [10.9.0.1], ports: [{number: 80, name: http}], resolution: STATIC}\n"
                .to_owned(),
        ]
        .concat(),
    );
    let plane = Plane::start(&cluster).await;

    let good = told(&cluster, GOOD, "douane.io/Governs", ("True", "Workloads"));
    assert_eq!(message(&good, "douane.io/Governs"), "1 workload");
    told(&cluster, GOOD, "douane.io/Accepted", ("True", "InForce"));
    let writers = cluster.kubectl(&["get", "-n", "shop", GOOD, "-o", "json", "--show-managed-fields"]).out;
    assert!(writers.contains("\"manager\": \"douane\""), "{writers}");
    let odd = told(&cluster, "authorizationpolicy/odd", "douane.io/AsWritten", ("False", "Errors"));
    assert!(message(&odd, "douane.io/AsWritten").contains("spiffe://"), "{odd:#}");
    told(&cluster, "authorizationpolicy/nobody", "douane.io/Governs", ("False", "Nobody"));
    let refused = told(&cluster, "authorizationpolicy/bad", "douane.io/Accepted", ("False", "Invalid"));
    let why = message(&refused, "douane.io/Accepted");
    assert!(why.contains("10.0.0.0/33") && why.ends_with("whom it names is denied everything"), "{why}");
    told(&cluster, "peerauthentication/strict", "douane.io/Accepted", ("True", "InForce"));
    let entry = told(&cluster, "serviceentry/mine", "douane.io/Accepted", ("False", "LeftOut"));
    assert!(message(&entry, "douane.io/Accepted").contains("belongs to the mesh already"), "{entry:#}");
    // As an operator sees it.
    let table = cluster.kubectl(&["get", "-n", "shop", "authorizationpolicies"]).out;
    assert!(table.contains("ACCEPTED") && table.contains("Invalid"), "{table}");

    // An edit that cannot be read, and one that can again.
    cluster.apply(&policy("good", bad));
    let edited = told(&cluster, GOOD, "douane.io/Accepted", ("False", "Invalid"));
    assert!(
        message(&edited, "douane.io/Accepted").ends_with("what it said before stays in force"),
        "{edited:#}"
    );
    cluster.apply(&policy("good", "{selector: {matchLabels: {app: ledger}}}"));
    told(&cluster, GOOD, "douane.io/Accepted", ("True", "InForce"));

    // Somebody else writes there, too, and takes ours away.
    let foreign = json!({"type": "example.com/Seen", "status": "True", "reason": "Seen", "message": ""});
    cluster.set_status("shop", GOOD, &json!({ "conditions": [foreign] }));
    let both = told(&cluster, GOOD, "douane.io/Governs", ("True", "Workloads"));
    assert_eq!(condition(&both, "example.com/Seen")["status"], "True", "{both:#}");

    // A second replica has nothing to add; nor has either of them when something else changes.
    let (first, bad_one) = (version(&cluster, GOOD), version(&cluster, "authorizationpolicy/bad"));
    let second = Plane::start(&cluster).await;
    second.is_ready();
    cluster.apply(&policy("later", "{selector: {matchLabels: {app: ledger}}}"));
    let later = told(&cluster, "authorizationpolicy/later", "douane.io/Governs", ("True", "Workloads"));
    cluster.apply(&policy("last", "{selector: {matchLabels: {app: ledger}}}"));
    told(&cluster, "authorizationpolicy/last", "douane.io/Governs", ("True", "Workloads"));
    assert_eq!(version(&cluster, GOOD), first);
    assert_eq!(version(&cluster, "authorizationpolicy/bad"), bad_one);
    assert_eq!(later["metadata"]["resourceVersion"], version(&cluster, "authorizationpolicy/later"));
    assert_eq!(plane.status()["troubles"], json!([]), "{}", plane.status());
    second.stop().await;
    plane.stop().await;
}
