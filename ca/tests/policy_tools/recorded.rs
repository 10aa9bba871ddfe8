//! `policy diff` and `policy suggest`: what access logs and case files tell about policies.

use serde_json::json;

use crate::desk::Desk;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders, pod-template-hash: abc}}
    spec: {serviceAccountName: orders, containers: [{name: orders}]}
---
";

const OLD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [GET]}}]
";

fn line(account: &str, method: &str, path: &str, status: u16) -> String {
    let decision = if status == 403 { "deny" } else { "allow" };
    let line = json!({
        "timestamp": "1970-01-01T00:00:01.500250Z", "level": "info", "kind": "access", "message": "x",
        "service": "orders", "environment": "lab", "namespace": "shop", "pod": "orders-abc-1",
        "direction": "inbound", "protocol": "h2", "method": method, "authority": "orders.shop", "path": path,
        "status": status, "peer_id": format!("spiffe://cluster.local/ns/shop/sa/{account}"),
        "peer_addr": "10.77.0.4:40000", "destination": "10.77.0.5:8080", "tls": null, "decision": decision,
    });
    format!("{line}\n")
}

fn log() -> String {
    let mut log = "{\"kind\":\"log\",\"message\":\"up\"}\nnot json\n".to_owned();
    for number in 0..8 {
        log.push_str(&line("web", "GET", &format!("/orders/{number}"), 200));
    }
    log.push_str(&line("web", "GET", "/health", 200));
    log.push_str(&line("web", "GET", "/health", 200));
    log.push_str(&line("intruder", "GET", "/orders/1", 403));
    log
}

#[test]
fn changed_verdicts_are_told_with_how_often_they_came() {
    let new = OLD.replace("methods: [GET]", "methods: [GET], notPaths: [/health]");
    let desk = Desk::new()
        .with("old/law.yaml", &format!("{DEPLOYMENT}{OLD}"))
        .with("new.yaml", &new)
        .with("access.log", &log());

    let said = desk.policy(&["diff", "old", "new.yaml", "--requests", "access.log"]);
    said.exits(1).says("access.log:11: cluster.local/ns/shop/sa/web -> shop/orders GET /health (2 times): allow -> deny: policy shop/readers rule 1: path /health is excluded by [/health]").says("2 of 11 requests change").says("holds no headers");

    desk.policy(&["diff", "old", "old", "--requests", "access.log"]).exits(0).says("0 of 11 requests change");
}

#[test]
fn the_requests_of_a_case_file_are_compared_as_well() {
    let cases = "
- name: one
  workload: {namespace: shop, labels: {app: orders}}
  requests:
  - {source: {principal: cluster.local/ns/shop/sa/web}, method: PUT, expect: allow}
";
    let new = OLD.replace("GET", "PUT");
    let desk = Desk::new().with("old.yaml", OLD).with("new.yaml", &new).with("cases.yaml", cases);
    let said = desk.policy(&["diff", "-o", "json", "old.yaml", "new.yaml", "--requests", "cases.yaml"]);
    let comparison = said.exits(1).json();
    assert_eq!(
        (&comparison["changes"][0]["old"], &comparison["changes"][0]["new"]),
        (&json!("deny"), &json!("allow"))
    );
}

#[test]
fn a_suggestion_is_least_privilege_passes_our_own_lint_and_changes_nothing() {
    let desk = Desk::new()
        .with("mesh/orders.yaml", DEPLOYMENT)
        .with("mesh/law.yaml", OLD)
        .with("access.log", &log());
    let said = desk.policy(&["suggest", "--log", "access.log", "--resources", "mesh"]);
    said.exits(0)
        .says("selector: {matchLabels: {app: orders}}")
        .says("# 10 requests")
        .says("- source: {principals: [cluster.local/ns/shop/sa/web]}")
        .says("- operation: {methods: [GET], paths: [/health, \"/orders/{*}\"]}");
    assert!(!said.out.contains("intruder"), "{}", said.out);

    let desk = desk.with("proposed.yaml", &said.out);
    desk.policy(&["lint", "--strict", "proposed.yaml", "mesh/orders.yaml"]).exits(0);
    desk.policy(&["diff", "mesh", "proposed.yaml", "--requests", "access.log"]).exits(0);
}

#[test]
fn a_log_without_allowed_requests_suggests_nothing() {
    let desk = Desk::new().with("access.log", &line("web", "GET", "/", 403));
    desk.policy(&["suggest", "--log", "access.log"]).exits(1);
    desk.policy(&["suggest", "--log", "missing.log"]).exits(2);
}
