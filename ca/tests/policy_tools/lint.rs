//! `policy lint`: errors, warnings, and what is clean.

use crate::desk::Desk;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  {}\n---\n",
        spec.replace('\n', "\n  ")
    )
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec: {containers: [{name: orders}]}
";

#[track_caller]
fn warns(spec: &str, text: &str) {
    let desk = Desk::new().with("law.yaml", &policy("one", spec));
    desk.policy(&["lint", "law.yaml"]).exits(0).says(text).says("0 errors");
    desk.policy(&["lint", "--strict", "law.yaml"]).exits(1);
}

#[test]
fn a_sound_policy_is_clean() {
    let spec = "selector: {matchLabels: {app: orders}}\nrules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]\n  to: [{operation: {methods: [GET], paths: [/orders, /orders/*]}}]";
    let desk = Desk::new().with("mesh/law.yaml", &policy("one", spec)).with("mesh/orders.yaml", DEPLOYMENT);
    desk.policy(&["lint", "--strict", "mesh"]).exits(0).says("0 errors, 0 warnings");
}

#[test]
fn every_flaw_of_every_file_is_told_with_its_line() {
    let broken = policy(
        "one",
        "action: DENY\nrules:\n- to: [{operation: {ports: [http]}}]\n- from: [{source: {ipBlocks: [x]}}]",
    );
    let desk = Desk::new().with("a.yaml", &broken).with("b.yaml", "kind: [");
    let said = desk.policy(&["lint", "-o", "json", "a.yaml", "b.yaml"]);

    let found = said.exits(1).json();

    let lines: Vec<_> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["file"].as_str().unwrap(), one["line"].as_u64().unwrap(), one["severity"].as_str().unwrap())
        })
        .collect();
    assert_eq!(lines, [("a.yaml", 7, "error"), ("a.yaml", 8, "error"), ("b.yaml", 1, "error")]);
    assert_eq!(found["errors"], 3);
}

#[test]
fn what_surely_is_not_meant_is_warned_of() {
    warns(
        "rules: [{to: [{operation: {methods: [get]}}]}]",
        "law.yaml:5: warning: AuthorizationPolicy shop/one: the method \"get\"",
    );
    warns("rules: [{to: [{operation: {paths: [/a/*/b]}}]}]", "matches only itself; {*} stands for a segment");
    warns("rules: [{to: [{operation: {paths: ['*a*']}}]}]", "it matches what ends with \"a*\"");
    warns("rules: [{to: [{operation: {paths: [/admin*]}}]}]", "matches /admin-other as well");
    warns("rules: [{to: [{operation: {paths: [/a], notPaths: [/*]}}]}]", "the rule never matches");
    warns("rules: [{from: [{source: {principals: ['cluster.local/ns/*/sa/web']}}]}]", "matches only itself");
    warns(
        "rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/web], namespaces: [b]}}]}]",
        "the rule never matches",
    );
    warns(
        "action: DENY\nrules: [{to: [{operation: {paths: [/x]}}]}]",
        "on a TCP port the rule denies every connection",
    );
    warns(
        "rules: [{from: [{source: {namespaces: [a]}}]}, {from: [{source: {namespaces: [a, b]}}]}]",
        "the rule changes nothing: law.yaml:5 says as much",
    );
    warns("targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]", "governs no sidecar");
}

#[test]
fn a_principal_with_its_scheme_is_an_error() {
    let spec = "rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/web']}}]}]";
    let desk = Desk::new().with("law.yaml", &policy("one", spec));
    desk.policy(&["lint", "law.yaml"]).exits(1).says("without spiffe://").says("1 errors");
}

#[test]
fn an_allow_rule_that_a_deny_rule_takes_back_is_told() {
    let laws = policy("a", "rules: [{to: [{operation: {ports: ['80'], methods: [GET]}}]}]")
        + &policy("d", "action: DENY\nrules: [{to: [{operation: {ports: ['80']}}]}]");
    let desk = Desk::new().with("law.yaml", &laws);
    desk.policy(&["lint", "law.yaml"]).says("the rule never allows: law.yaml:12 denies all of it");
}

#[test]
fn a_selector_is_checked_where_workloads_are_given() {
    let law = policy("one", "selector: {matchLabels: {app: order}}\nrules: [{}]");
    let desk = Desk::new().with("law.yaml", &law).with("orders.yaml", DEPLOYMENT);
    desk.policy(&["lint", "--strict", "law.yaml"]).exits(0);
    desk.policy(&["lint", "law.yaml", "orders.yaml"]).exits(0).says("selects no workload of these files");
}

#[test]
fn plaintext_and_undefined_providers_are_told() {
    let peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: PERMISSIVE}}\n---\n";
    let custom =
        policy("ask", "action: CUSTOM\nprovider: {name: ext}\nrules: [{to: [{operation: {ports: ['80']}}]}]");
    let desk = Desk::new()
        .with("law.yaml", &format!("{peer}{custom}"))
        .with("mesh.yaml", "trustDomain: cluster.local\n");
    let said = desk.policy(&["lint", "law.yaml"]);
    said.exits(0).says("PERMISSIVE takes plaintext").says("1 warnings");
    desk.policy(&["lint", "--mesh-config", "mesh.yaml", "law.yaml"])
        .says("defines no extension provider \"ext\"");
}
