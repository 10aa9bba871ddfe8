//! The rights of our service account: enough for all that the control plane does, and each of them used. What it really asked
//! is in the API server's audit log; what it may do besides is asked of the API server.

use std::{collections::BTreeSet, fs, path::Path};

use douane_ca::config::StatePlace;
use douane_tests::wait::eventually;
use serde_json::Value;

use super::plane::{INSTALL, LIMIT, Plane, Pod, installed, namespaces, run_pod};

const US: &str = "system:serviceaccount:douane-system:douane-ca";

/// Granted, and never a verb of the audit log by itself.
const UNSEEN: &[(Right, &str)] = &[(
    ("", "configmaps", "create"),
    "an apply (patch) that makes an object needs it, and is logged as a patch",
)];

/// API group, resource, verb.
type Right = (&'static str, &'static str, &'static str);
type Owned = (String, String, String);

/// What must be refused, as `kubectl auth can-i` asks it.
const REFUSED: &[&[&str]] = &[
    &["get", "secrets"],
    &["list", "secrets"],
    &["get", "secrets", "-n", "kube-system"],
    &["create", "pods"],
    &["patch", "pods"],
    &["delete", "pods"],
    &["create", "pods/exec"],
    &["create", "pods/eviction"],
    &["create", "serviceaccounts/token"],
    &["impersonate", "users"],
    &["impersonate", "serviceaccounts"],
    &["bind", "clusterroles"],
    &["escalate", "clusterroles"],
    &["create", "clusterrolebindings"],
    &["update", "authorizationpolicies"],
    &["patch", "authorizationpolicies"],
    &["delete", "authorizationpolicies"],
    &["patch", "namespaces"],
    &["patch", "services"],
    &["get", "nodes"],
    &["patch", "configmaps/other"],
    &["get", "configmaps"],
    &["delete", "configmaps/douane-root"],
    &["patch", "mutatingwebhookconfigurations/other"],
    &["create", "mutatingwebhookconfigurations"],
    &["delete", "validatingwebhookconfigurations/douane"],
    &["patch", "customresourcedefinitions"],
];

const WEB: Pod<'_> = Pod {
    namespace: "shop",
    name: "web-1",
    app: "web",
    labels: "",
    sidecar: true,
    port: ("http", 8080),
    addresses: &["10.77.0.10"],
};

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

// Everything that the manifests grant.
fn granted() -> BTreeSet<Owned> {
    let text = fs::read_to_string(Path::new(INSTALL).join("parts/rbac.yaml")).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let roles = all.iter().filter(|it| ["ClusterRole", "Role"].iter().any(|kind| it["kind"] == *kind));
    let mut granted = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    assert!(![&group, &resource, &verb].iter().any(|word| *word == "*"), "{rule}");
                    granted.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    assert!(granted.len() > 20, "{granted:?}");
    granted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn our_rights_are_enough_each_is_used_and_nothing_else_is_allowed() {
    let cluster = installed();
    namespaces(&cluster, &[("shop", "")]);
    run_pod(&cluster, &WEB);
    // With all that it can use.
    let plane = Plane::admitting(&cluster, |config| {
        config.kubernetes.as_mut().unwrap().state = StatePlace::Secret;
    })
    .await;
    plane.is_ready();
    plane.svid(&cluster, "shop", "web-1", "web").await;
    let object = |kind: &str, group: &str, spec: &str| {
        format!(
            "apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: one, namespace: shop}}\nspec: {spec}\n---\n"
        )
    };
    let entry =
        "{hosts: [a.example], addresses: [192.0.2.1], ports: [{number: 443, name: tls}], resolution: STATIC}";
    let all = [
        object("AuthorizationPolicy", "security.istio.io", "{}"),
        object("PeerAuthentication", "security.istio.io", "{mtls: {mode: STRICT}}"),
        object("RequestAuthentication", "security.istio.io", "{}"),
        object("ServiceEntry", "networking.istio.io", entry),
        object("WorkloadEntry", "networking.istio.io", "{address: 192.0.2.7}"),
    ]
    .concat();
    eventually("the API server knows our webhook", LIMIT, || {
        let said = cluster.kubectl_with(&["apply", "-f", "-"], &all);
        if said.ok { Ok(()) } else { Err(said.err) }
    });

    let granted = granted();
    let unseen = |right: &Owned| {
        UNSEEN.iter().any(|((group, resource, verb), _)| {
            (right.0.as_str(), right.1.as_str(), right.2.as_str()) == (*group, *resource, *verb)
        })
    };
    eventually("each right is used", LIMIT, || {
        let asked = cluster.asked_by("douane-system", "douane-ca");
        let refused: Vec<_> = asked.iter().filter(|request| request.code == 403).collect();
        assert!(refused.is_empty(), "the rights are not enough: {refused:?}");
        let used: BTreeSet<Owned> =
            asked.into_iter().map(|request| (request.group, request.resource, request.verb)).collect();
        let unused: Vec<_> = granted.difference(&used).filter(|right| !unseen(right)).collect();
        if unused.is_empty() { Ok(()) } else { Err(format!("{unused:?}")) }
    });
    for question in REFUSED {
        let said = cluster.kubectl(&[&["auth", "can-i", "--as", US], *question].concat());
        assert_eq!(said.out.trim(), "no", "{question:?}: {}", said.err);
    }
    plane.stop().await;
}
