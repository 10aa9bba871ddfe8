//! Our own manifests, held against our own rules (`kind-cluster/policy`, Rego); and each rule against a manifest that breaks
//! it. `UPDATE_GOLDEN=1` writes `kind-cluster/manifests/douane.yaml` anew.

use std::{fs, path::PathBuf};

use douane_ca::{
    config::Config,
    install::{Crds, MeshFile, TOKEN_ISSUER, Wishes, manifests},
};
use regorus::Engine;
use serde_json::{Value, json};

fn kind_cluster(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../kind-cluster").join(name)
}

fn installed() -> String {
    manifests(&Wishes::default(), &MeshFile::of_domains(&Config::default(), TOKEN_ISSUER), Crds::With)
}

fn objects(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// What the rules have against an object.
fn wrong(object: &Value) -> Vec<String> {
    let mut engine = Engine::new();
    let rules = fs::read_to_string(kind_cluster("policy/manifests.rego")).unwrap();
    engine.add_policy("manifests.rego".to_owned(), rules).unwrap();
    engine.set_input(object.to_string().parse::<Value>().unwrap().into());
    let denied = engine.eval_rule("data.main.deny".to_owned()).unwrap();
    denied.as_set().unwrap().iter().map(|message| message.as_string().unwrap().to_string()).collect()
}

#[test]
fn what_we_install_obeys_our_own_rules() {
    let objects = objects(&installed());
    assert!(objects.iter().any(|object| object["kind"] == "Deployment"));
    let wrong: Vec<_> = objects.iter().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_the_demo_s_cluster_runs_beside_us_obeys_them_too() {
    let mut pods = 0;
    for file in ["jaeger.yaml", "prometheus.yaml", "grafana.yaml", "namespace.yaml"] {
        for object in objects(&fs::read_to_string(kind_cluster("monitoring").join(file)).unwrap()) {
            pods += usize::from(object["kind"] == "Deployment");
            assert_eq!(wrong(&object), Vec::<String>::new(), "{file}");
        }
    }
    assert_eq!(pods, 3);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let good = json!({
        "kind": "Deployment", "metadata": {"name": "x"},
        "spec": {"template": {"spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "c", "image": "registry.example:5000/c:1",
                "resources": {"limits": {"memory": "1Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        }}},
    });
    assert_eq!(wrong(&good), Vec::<String>::new());
    let container = "/spec/template/spec/containers/0";
    let pod = "/spec/template/spec";
    let breaks: &[(&str, &str, Value, &str)] = &[
        (container, "image", json!("c"), "may be another one tomorrow"),
        (container, "image", json!("registry.example:5000/c"), "may be another one tomorrow"),
        (container, "image", json!("c:latest"), "may be another one tomorrow"),
        (pod, "securityContext", json!({"seccompProfile": {"type": "RuntimeDefault"}}), "may run as root"),
        (pod, "securityContext", json!({"runAsNonRoot": true}), "no seccomp profile"),
        (container, "resources", json!({}), "all of a node's memory"),
        (pod, "hostNetwork", json!(true), "shares hostNetwork"),
        (pod, "volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), "a folder of the node"),
    ];
    for (place, field, value, message) in breaks {
        let mut bad = good.clone();
        bad.pointer_mut(place).unwrap()[*field] = value.clone();
        let found = wrong(&bad);
        assert!(found.iter().any(|one| one.contains(message)), "{field}: {value}: {found:?}");
    }
    let of_the_container: &[(&str, Value, &str)] = &[
        ("runAsUser", json!(0), "runs as root"),
        ("runAsNonRoot", json!(false), "may run as root"),
        ("privileged", json!(true), "is privileged"),
        ("allowPrivilegeEscalation", json!(true), "may gain privileges"),
        ("readOnlyRootFilesystem", json!(false), "write its own image"),
        ("capabilities", json!({"drop": ["NET_RAW"]}), "keeps capabilities"),
        ("capabilities", json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}), "asks for capability NET_ADMIN"),
    ];
    for (field, value, message) in of_the_container {
        let mut bad = good.clone();
        bad.pointer_mut(container).unwrap()["securityContext"][*field] = value.clone();
        let found = wrong(&bad);
        assert!(found.iter().any(|one| one.contains(message)), "{field}: {value}: {found:?}");
    }
    let role = |rule: Value| json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]});
    let everything = wrong(&role(json!({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]})));
    assert!(everything.iter().any(|one| one.contains("permits everything")), "{everything:?}");
    let secrets = wrong(&role(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})));
    assert!(secrets.iter().any(|one| one.contains("every Secret")), "{secrets:?}");
    let webhook = json!({
        "kind": "MutatingWebhookConfiguration", "metadata": {"name": "w"},
        "webhooks": [{"name": "pods", "rules": [{"apiGroups": [""], "resources": ["pods"]}]}],
    });
    let stops = wrong(&webhook);
    assert!(stops.iter().any(|one| one.contains("nothing to do with us")), "{stops:?}");
}

#[test]
fn the_kustomize_base_is_what_install_prints() {
    let path = kind_cluster("manifests/douane.yaml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, installed()).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == installed(), "run this test with UPDATE_GOLDEN=1 and look at what changed in {path:?}");
}
