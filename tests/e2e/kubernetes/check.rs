//! `douane check` of a real API, before and after `douane install` was applied to it.

use std::{path::Path, process::Command};

use douane_tests::kubernetes::Cluster;
use serde_json::{Value, json};

fn douane(arguments: &[&str]) -> (String, Option<i32>) {
    let ended = Command::new(env!("CARGO_BIN_EXE_plane-under-test")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(!out.is_empty(), "{arguments:?} said {said}");
    (out, ended.status.code())
}

fn check(kubeconfig: &Path, more: &[&str]) -> (Vec<Value>, Option<i32>) {
    let kubeconfig = kubeconfig.display().to_string();
    let arguments = [&["check", "-o", "json", "--kubeconfig", &kubeconfig], more].concat();
    let (out, code) = douane(&arguments);
    let said: Value = serde_json::from_str(&out).unwrap();
    (said["findings"].as_array().unwrap().clone(), code)
}

fn level<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))["level"].as_str().unwrap()
}

#[test]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
fn a_cluster_is_looked_at_before_and_after_an_installation_and_each_fault_has_its_command() {
    let cluster = Cluster::start();
    let (findings, code) = check(cluster.admin(), &["--pre"]);
    for fine in ["api.version", "api.clock", "rights.install", "definitions.served", "namespaces.label"] {
        assert_eq!(level(&findings, fine), "ok", "{findings:#?}");
    }
    assert_eq!(code, Some(0));

    // Somebody who may do nothing, and a label that means nothing.
    cluster.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: nobody, namespace: default}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {douane.io/inject: 'yes'}}\n",
    );
    let (findings, code) = check(&cluster.kubeconfig_of("default", "nobody"), &["--pre"]);
    assert_eq!((level(&findings, "rights.install"), level(&findings, "api.read")), ("error", "warning"));
    assert_eq!(code, Some(1));
    let (findings, code) = check(cluster.admin(), &["--pre"]);
    assert_eq!((level(&findings, "namespaces.label"), code), ("error", Some(1)));
    let finding = findings.iter().find(|finding| finding["check"] == "namespaces.label").unwrap();
    let mend = finding["mend"].as_str().unwrap();
    assert_eq!(mend, "kubectl label --overwrite namespace shop douane.io/inject=enabled");
    let words: Vec<&str> = mend.split(' ').skip(1).collect();
    assert!(cluster.kubectl(&words).ok, "the command does what it says");
    assert_eq!(check(cluster.admin(), &["--pre"]).1, Some(0));

    // All that is installed is taken by a real API server; nobody runs it here.
    let (manifests, _) = douane(&["install"]);
    let applied = cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &manifests);
    assert!(applied.ok, "{}", applied.err);
    let (findings, code) = check(cluster.admin(), &[]);
    assert_eq!(code, Some(1));
    for wrong in ["control-plane.ready", "roots.published", "webhook.roots", "webhook.answers"] {
        assert_eq!(level(&findings, wrong), "error", "{findings:#?}");
    }
    assert_eq!(level(&findings, "control-plane.lease"), "warning");
    assert_eq!(level(&findings, "definitions.served"), "ok");

    // As its controllers would show it, with one pod that was there before.
    let ready = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 2});
    cluster.set_status("douane-system", "deployment/douane-ca", &ready);
    cluster.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: kube-system}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: early, namespace: kube-system, labels: {app: early}}\n\
         spec: {containers: [{name: app, image: 'app:1'}]}\n",
    );
    let (findings, _) = check(cluster.admin(), &[]);
    assert_eq!(level(&findings, "control-plane.ready"), "warning");
    assert_eq!(level(&findings, "pods.missing"), "ok", "pods of kube-system are never in the mesh");
    let upgraded = cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &manifests);
    assert!(upgraded.ok, "it can be applied again: {}", upgraded.err);
}
