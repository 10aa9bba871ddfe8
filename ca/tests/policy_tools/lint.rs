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
    warns("rules: [{to: [{operation: {paths: [admin]}}]}]", "every path begins with a slash");
    warns("rules: [{to: [{operation: {notPaths: ['admin/*']}}]}]", "every path begins with a slash");
    warns("rules: [{to: [{operation: {paths: [/a/*/b]}}]}]", "matches only itself; {*} stands for a segment");
    warns("rules: [{to: [{operation: {paths: ['*a*']}}]}]", "it matches what ends with \"a*\"");
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
    warns(
        "rules: [{from: [{source: {namespaces: [a]}}]}, {from: [{source: {principals: [cluster.local/ns/a/sa/x]}}]}]",
        "the rule changes nothing: law.yaml:5 says as much",
    );
    warns(
        "rules: [{from: [{source: {principals: [shop/web]}}]}]",
        "one is TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
    );
    warns("targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]", "governs no sidecar");
}

#[test]
fn demands_that_no_request_meets_are_told() {
    for rule in [
        "when: [{key: source.namespace, values: [a]}, {key: source.namespace, values: [b]}]",
        "from: [{source: {namespaces: [a]}}]\n  when: [{key: source.namespace, values: [b]}]",
        "from: [{source: {principals: ['*/sa/web']}}]\n  when: [{key: source.principal, values: ['*/sa/api']}]",
        "to: [{operation: {ports: ['80']}}]\n  when: [{key: destination.port, values: ['8080', '81']}]",
        "from: [{source: {ipBlocks: [10.1.0.0/16]}}]\n  when: [{key: source.ip, values: [10.2.0.0/16, 'fd00::/8']}]",
        "from: [{source: {ipBlocks: [10.1.2.3], notIpBlocks: [10.0.0.0/8]}}]",
    ] {
        warns(
            &format!("rules:\n- {rule}"),
            "law.yaml:6: warning: AuthorizationPolicy shop/one: the rule never matches",
        );
    }
    for rule in [
        "when: [{key: source.namespace, values: [a, b]}, {key: source.namespace, values: [b]}]",
        "when: [{key: 'request.headers[x]', values: [a]}, {key: 'request.headers[x]', values: [b]}]",
        "from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}]\n  when: [{key: source.namespace, values: [b]}]",
        "from: [{source: {principals: [old/ns/a/sa/x]}}]\n  when: [{key: source.principal, values: [new/ns/a/sa/x]}]",
        "from: [{source: {ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.0/16]}}]",
        "to: [{operation: {ports: ['80', '443']}}]\n  when: [{key: destination.port, values: ['8*']}]",
    ] {
        let desk = Desk::new().with("law.yaml", &policy("one", &format!("rules:\n- {rule}")));
        let said = desk.policy(&["lint", "law.yaml"]);
        assert!(!said.out.contains("never matches"), "{rule}: {}", said.out);
    }
}

#[test]
fn an_open_prefix_is_told_only_where_the_files_show_that_it_is_too_wide() {
    let paths = |paths: &str| format!("rules: [{{to: [{{operation: {{paths: {paths}}}}}]}}]");
    warns(&paths("[/admin, /admin*]"), "matches \"/admin\" already, and /admin-other as well");
    warns(&paths("[/admin*, /admin/*]"), "matches \"/admin/*\" already");
    warns(
        &paths("[/admin*, /admin-public]"),
        "the path \"/admin*\" matches \"/admin-public\" of law.yaml:5 as well",
    );

    let two = |other: &str| policy("one", &paths("[/v1*]")) + other;
    let elsewhere = policy("two", &paths("[/v10/*]"));
    let said = Desk::new().with("law.yaml", &two(&elsewhere)).policy(&["lint", "law.yaml"]);
    said.exits(0).says("law.yaml:5: warning:").says("matches \"/v10/*\" of law.yaml:11 as well");

    let stranger = elsewhere.replace("namespace: shop", "namespace: other");
    for sound in [String::new(), stranger, policy("two", &paths("[/v2/*, /v, '*/v10']"))] {
        Desk::new().with("law.yaml", &two(&sound)).policy(&["lint", "--strict", "law.yaml"]).exits(0);
    }
    let excepted = policy("one", "rules: [{to: [{operation: {paths: [/api*], notPaths: [/api-docs]}}]}]");
    Desk::new().with("law.yaml", &excepted).policy(&["lint", "--strict", "law.yaml"]).exits(0);
}

#[test]
fn documents_that_nothing_parts_are_explained() {
    let law = policy("one", "rules: [{}]").replace("---\n", "");
    let said = Desk::new().with("law.yaml", &law.repeat(2)).policy(&["lint", "law.yaml"]);
    said.exits(1).says("law.yaml:6: error").says("part two documents by a line ---");
}

#[test]
fn a_star_without_quotes_is_explained() {
    let law = policy("one", "rules: [{to: [{operation: {methods: [*]}}]}]");
    let said = Desk::new().with("law.yaml", &law).policy(&["lint", "law.yaml"]);
    said.exits(1).says("law.yaml:5: error").says("must stand in quotes");
}

#[test]
fn a_principal_with_its_scheme_is_an_error() {
    let spec = "rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/web']}}]}]";
    let desk = Desk::new().with("law.yaml", &policy("one", spec));
    desk.policy(&["lint", "law.yaml"])
        .exits(1)
        .says("law.yaml:5: error: ")
        .says("without spiffe://")
        .says("1 error,");
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
    said.exits(0).says("PERMISSIVE takes plaintext").says("1 warning");
    desk.policy(&["lint", "--mesh-config", "mesh.yaml", "law.yaml"])
        .says("defines no extension provider \"ext\"");
}
