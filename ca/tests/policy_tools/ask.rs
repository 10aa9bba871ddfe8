//! `policy can-i` and `policy explain`: the verdict, where it is written, and what would change it.

use crate::desk::Desk;

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {selector: {app: orders}, ports: [{name: http, port: 80, targetPort: web}, {name: tcp-ledger, port: 90}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec: {serviceAccountName: orders, containers: [{name: orders, ports: [{name: web, containerPort: 8080}]}]}
";

const LAW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {ports: ['8080'], methods: [GET], paths: [/orders/*]}}]
  - from: [{source: {requestPrincipals: [https://issuer/alice]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-debug, namespace: shop}
spec:
  action: DENY
  rules: [{to: [{operation: {ports: ['8080'], paths: [/orders/debug]}}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: issuer, namespace: shop}
spec: {jwtRules: [{issuer: https://issuer, jwksUri: https://issuer/keys}]}
";

fn desk() -> Desk {
    Desk::new().with("mesh/shop.yaml", SHOP).with("mesh/law.yaml", LAW)
}

#[test]
fn yes_is_exit_0_and_names_the_rule_with_its_line() {
    let arguments =
        ["can-i", "--resources", "mesh", "--from", "shop/web", "--to", "orders.shop:80", "GET", "/orders/1"];
    desk()
        .policy(&arguments)
        .exits(0)
        .says("yes: ")
        .says("mesh/law.yaml:8: policy shop/readers rule 1 allows it");
}

#[test]
fn no_is_exit_1_and_says_what_to_add() {
    let arguments =
        ["can-i", "--resources", "mesh", "--from", "shop/web", "--to", "orders:80", "PUT", "/orders/1"];
    let said = desk().policy(&arguments);
    said.exits(1).says("mesh/law.yaml:8: policy shop/readers rule 1: method PUT is not in [GET]").says(
        "To allow it, add this rule to policy shop/readers (mesh/law.yaml:2):

  - from:
    - source: {principals: [cluster.local/ns/shop/sa/web]}
    to:
    - operation: {methods: [PUT], paths: [/orders/1]}
",
    );
}

#[test]
fn what_is_suggested_gives_the_other_verdict() {
    let questions: [&[&str]; 4] = [
        &["--from", "shop/web", "--to", "orders.shop:80", "GET", "/orders/debug"],
        &["--from", "other/stranger", "--to", "orders.shop:80", "DELETE", "/x"],
        &["--from", "shop/web", "--to", "orders.shop:90"],
        &["--plaintext", "--source-ip", "10.0.0.7", "--to", "orders.shop:80", "GET", "/"],
    ];
    for question in questions {
        let ask =
            |desk: &Desk| desk.policy(&[&["can-i", "-o", "json", "--resources", "mesh"], question].concat());
        let before = ask(&desk());
        let answer = before.exits(1).json();
        let changes = answer["changes"].as_array().unwrap();
        assert!(!changes.is_empty(), "{question:?}");

        let (mut law, mut added) = (LAW.to_owned(), String::new());
        for change in changes {
            let (what, yaml) = (change["what"].as_str().unwrap(), change["yaml"].as_str().unwrap());
            let rule = yaml.replace('\n', "\n  ");
            if what.contains("add this rule to policy shop/readers") {
                law = law.replacen("  rules:\n", &format!("  rules:\n  {}\n", rule.trim_end()), 1);
            } else if what.contains("write rule 1 of policy shop/no-debug") {
                law = law.replacen(
                    "  rules: [{to: [{operation: {ports: ['8080'], paths: [/orders/debug]}}]}]",
                    &format!("  rules:\n  {}", rule.trim_end()),
                    1,
                );
            } else {
                assert!(what.ends_with("add this:") || what.ends_with("add this policy:"), "{what}");
                added.push_str(&format!("---\n{yaml}"));
            }
        }
        let changed = desk().with("mesh/law.yaml", &law).with(
            "mesh/more.yaml",
            &(added + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"),
        );
        ask(&changed).exits(0);
    }
}

#[test]
fn a_claim_counts_as_if_its_token_had_verified() {
    let mut arguments = vec!["can-i", "--resources", "mesh", "--from", "other/web", "--to", "orders.shop:80"];
    let claims = |subject| format!("{{\"iss\": \"https://issuer\", \"sub\": \"{subject}\"}}");
    let (alice, bob) = (claims("alice"), claims("bob"));
    arguments.extend(["--token-claims", &alice, "POST", "/x"]);
    desk().policy(&arguments).exits(0).says("rule 2 allows it");
    arguments[8] = &bob;
    desk().policy(&arguments).exits(1);
}

#[test]
fn explain_tells_what_every_policy_makes_of_it() {
    let arguments = [
        "explain",
        "-o",
        "json",
        "--resources",
        "mesh",
        "--from",
        "shop/web",
        "--to",
        "orders.shop:80",
        "GET",
        "/orders/1",
    ];
    let answer = desk().policy(&arguments).exits(0).json();
    let told: Vec<_> = answer["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| {
            let rules = policy["rules"].as_array().unwrap().iter();
            let matches: Vec<_> = rules.map(|rule| rule["matches"].as_bool().unwrap()).collect();
            (policy["policy"].as_str().unwrap(), policy["action"].as_str().unwrap(), matches)
        })
        .collect();
    assert_eq!(told, [("shop/no-debug", "DENY", vec![false]), ("shop/readers", "ALLOW", vec![true, false])]);
    assert_eq!(answer["place"], "mesh/law.yaml:8");
}

#[test]
fn what_cannot_be_asked_is_exit_2() {
    let none = ["can-i", "--resources", "mesh", "--from", "shop/web", "--to", "nobody", "GET", "/"];
    desk().policy(&none).exits(2);
    let nobody = ["can-i", "--resources", "mesh", "--to", "orders.shop:80", "GET", "/"];
    desk().policy(&nobody).exits(2);
    let broken = desk().with("mesh/broken.yaml", "kind: [");
    let said = broken.policy(&[
        "can-i",
        "--resources",
        "mesh",
        "--from",
        "a/b",
        "--to",
        "orders.shop:80",
        "GET",
        "/",
    ]);
    said.exits(2);
    assert!(said.err.contains("mesh/broken.yaml:1"), "{}", said.err);
}
