//! A refusal says why: policy, rule, and the first field that did not match of the nearest rule.

use super::*;

fn orders_callers() -> wire::Policy {
    let rule = wire::Rule {
        from: from(wire::Source {
            principals: list(&["cluster.local/ns/shop/sa/web"]),
            ..Default::default()
        })
        .from,
        to: to(wire::Operation {
            methods: list(&["GET", "POST"]),
            paths: list(&["/orders*"]),
            ..Default::default()
        })
        .to,
        ..Default::default()
    };
    written(wire::Action::Allow, "orders-callers", vec![rule])
}

#[test]
fn the_first_field_that_did_not_match_is_named() {
    let policies = valid(vec![orders_callers()]);
    let intruder =
        Facts { peer: Some(id("spiffe://cluster.local/ns/shop/sa/intruder")), ..request("GET", "/orders/1") };
    let anonymous = Facts { peer: None, ..request("GET", "/orders/1") };
    let opaque = stream();
    for (facts, expected) in [
        (intruder, "principal cluster.local/ns/shop/sa/intruder is not in [cluster.local/ns/shop/sa/web]"),
        (anonymous, "there is no principal, it must be in [cluster.local/ns/shop/sa/web]"),
        (request("DELETE", "/orders/1"), "method DELETE is not in [GET, POST]"),
        (request("GET", "/admin"), "path /admin is not in [/orders*]"),
        (opaque, "it asks for a method, and this is an opaque stream"),
    ] {
        assert_eq!(reason(&policies, &facts), format!("policy shop/orders-callers rule 1: {expected}"));
    }
}

#[test]
fn the_rule_that_came_farthest_is_named() {
    let far = when("source.namespace", &["nowhere"], &[]);
    let mut near = when("destination.port", &["9"], &[]);
    near.from = vec![wire::Source { namespaces: list(&["shop"]), ..Default::default() }];
    let policies = valid(vec![
        written(
            wire::Action::Allow,
            "far",
            vec![from(wire::Source { namespaces: list(&["x"]), ..Default::default() })],
        ),
        written(wire::Action::Allow, "near", vec![near]),
        written(wire::Action::Allow, "also", vec![far]),
    ]);

    let Decision::Deny(denial) = decide(&policies, &stream(), &Answers::default()) else {
        panic!("it must be denied")
    };
    assert_eq!(denial.policy.as_deref(), Some("shop/near"));
    assert_eq!(denial.rule, Some(1));
    assert_eq!(denial.reason, "policy shop/near rule 1: port 8080 is not in [9]");
}

#[test]
fn a_deny_rule_says_what_it_matched() {
    let mut rule = to(wire::Operation { methods: list(&["DELETE"]), ..Default::default() });
    rule.from = vec![wire::Source { not_namespaces: list(&["admin"]), ..Default::default() }];
    let policies = valid(vec![deny(vec![rule])]);
    assert_eq!(
        reason(&policies, &request("DELETE", "/")),
        "policy shop/deny rule 1: it denies, since namespace shop is not in [admin] and method DELETE is in [DELETE]"
    );
    assert_eq!(
        reason(&policies, &stream()),
        "policy shop/deny rule 1: it denies, since namespace shop is not in [admin]"
    );
}

#[test]
fn a_policy_without_rules_says_so_and_a_permit_names_its_rule() {
    assert_eq!(
        reason(&valid(vec![allow(vec![])]), &stream()),
        "policy shop/allow: it has no rules, so that it allows nothing"
    );
    let policies = valid(vec![orders_callers()]);
    let Decision::Allow(permit) = decide(&policies, &request("GET", "/orders/1"), &Answers::default()) else {
        panic!("it must pass")
    };
    assert_eq!(permit.by.as_deref(), Some("shop/orders-callers rule 1"));
}

#[test]
fn an_excluded_value_is_told_apart_from_one_that_is_not_listed() {
    let mut operation = wire::Operation { paths: list(&["/a*"]), ..Default::default() };
    operation.not_paths = list(&["/a/secret"]);
    let policies = valid(vec![allow(vec![to(operation)])]);
    assert!(reason(&policies, &request("GET", "/b")).ends_with("path /b is not in [/a*]"));
    assert!(
        reason(&policies, &request("GET", "/a/secret"))
            .ends_with("path /a/secret is excluded by [/a/secret]")
    );
}

#[test]
fn a_stranger_can_neither_forge_a_log_line_nor_make_it_long_nor_show_a_secret() {
    let policies = valid(vec![allow(vec![when("connection.sni", &["a"], &[])])]);
    let forged = Facts { sni: Some(format!("x\n{}", "y".repeat(1000))), ..stream() };
    let line = reason(&policies, &forged);
    assert!(!line.contains('\n') && line.len() < 300, "{line}");

    let policies = valid(vec![allow(vec![when("request.headers[authorization]", &["Bearer good"], &[])])]);
    let line = reason(&policies, &with_headers(&[("authorization", "Bearer secret")]));
    assert!(!line.contains("Bearer secret"), "{line}");
}

#[test]
fn a_query_is_not_repeated_since_it_may_hold_a_secret() {
    let policies =
        valid(vec![written(wire::Action::Deny, "no", vec![when("request.headers[:path]", &["/a*"], &[])])]);
    let mut facts = request("GET", "/a");
    facts.request.as_mut().unwrap().target.query = Some("token=s3cret".to_owned());

    let reason = reason(&policies, &facts);

    assert!(reason.contains("/a?(query withheld)") && !reason.contains("s3cret"), "{reason}");
}
