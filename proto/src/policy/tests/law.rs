//! Order, emptiness, AND and OR, and what HTTP means on an opaque stream (policy semantics 1.2 to 1.4, 1.7).

use super::*;

fn by_web() -> wire::Rule {
    from(wire::Source { principals: list(&["cluster.local/ns/shop/sa/web"]), ..Default::default() })
}

fn gets() -> wire::Rule {
    to(wire::Operation { methods: list(&["GET"]), ..Default::default() })
}

fn nobody() -> wire::Rule {
    from(wire::Source { namespaces: list(&["nowhere"]), ..Default::default() })
}

#[test]
fn without_an_allow_policy_everything_passes() {
    assert!(passes(&valid(vec![]), &stream()));
    assert!(passes(&valid(vec![deny(vec![nobody()])]), &stream()));
}

#[test]
fn a_deny_wins_over_an_allow_in_any_order() {
    let (allowing, denying) = (allow(vec![by_web()]), deny(vec![by_web()]));
    assert!(passes(&valid(vec![allowing.clone()]), &stream()));
    assert!(!passes(&valid(vec![allowing.clone(), denying.clone()]), &stream()));
    assert!(!passes(&valid(vec![denying, allowing]), &stream()));
}

#[test]
fn what_no_allow_policy_allows_is_denied() {
    assert!(!passes(&valid(vec![allow(vec![nobody()])]), &stream()));
    assert!(passes(&valid(vec![allow(vec![nobody()]), allow(vec![by_web()])]), &stream()));
    assert!(passes(&valid(vec![allow(vec![nobody(), by_web()])]), &stream()));
}

#[test]
fn no_rules_match_nothing_and_an_empty_rule_matches_all() {
    assert!(!passes(&valid(vec![allow(vec![])]), &stream()));
    assert!(!passes(&valid(vec![allow(vec![])]), &request("GET", "/")));
    assert!(passes(&valid(vec![allow(vec![wire::Rule::default()])]), &stream()));
    assert!(!passes(&valid(vec![deny(vec![wire::Rule::default()])]), &stream()));
}

#[test]
fn sections_are_joined_by_and_their_entries_by_or() {
    let web = wire::Source { principals: list(&["cluster.local/ns/shop/sa/web"]), ..Default::default() };
    let other = wire::Source { namespaces: list(&["other"]), ..Default::default() };
    let get = wire::Operation { methods: list(&["GET"]), ..Default::default() };
    let post = wire::Operation { methods: list(&["POST"]), ..Default::default() };
    let rule = |from: &[&wire::Source], to: &[&wire::Operation]| wire::Rule {
        from: from.iter().copied().cloned().collect(),
        to: to.iter().copied().cloned().collect(),
        ..Default::default()
    };
    let facts = request("GET", "/");
    assert!(allows(rule(&[&web], &[&get]), &facts));
    assert!(allows(rule(&[&other, &web], &[&post, &get]), &facts));
    assert!(!allows(rule(&[&other], &[&get]), &facts));
    assert!(!allows(rule(&[&web], &[&post]), &facts));
}

#[test]
fn fields_of_an_entry_are_joined_by_and_and_conditions_too() {
    let both = |namespace: &str| {
        from(wire::Source {
            principals: list(&["cluster.local/ns/shop/sa/web"]),
            namespaces: list(&[namespace]),
            ..Default::default()
        })
    };
    assert!(allows(both("shop"), &stream()));
    assert!(!allows(both("other"), &stream()));

    let mut conditions = when("source.namespace", &["shop"], &[]);
    assert!(allows(conditions.clone(), &stream()));
    conditions.when.extend(when("destination.port", &["9090"], &[]).when);
    assert!(!allows(conditions, &stream()));
}

#[test]
fn a_field_and_its_negative_are_joined_by_and() {
    let rule = |not: &str| {
        from(wire::Source {
            namespaces: list(&["sh*", "other"]),
            not_namespaces: list(&[not]),
            ..Default::default()
        })
    };
    assert!(allows(rule("prod"), &stream()));
    assert!(!allows(rule("shop"), &stream()));
}

#[test]
fn a_negative_of_a_missing_attribute_holds() {
    let anonymous = Facts { peer: None, ..stream() };
    let not_web = || {
        from(wire::Source { not_principals: list(&["cluster.local/ns/shop/sa/web"]), ..Default::default() })
    };
    assert!(allows(not_web(), &anonymous));
    assert!(denies(not_web(), &anonymous));
    assert!(!allows(by_web(), &anonymous));
    assert!(denies(from(wire::Source { not_principals: list(&["*"]), ..Default::default() }), &anonymous));
    assert!(!denies(from(wire::Source { not_principals: list(&["*"]), ..Default::default() }), &stream()));
}

#[test]
fn on_an_opaque_stream_an_http_field_voids_an_allow_rule() {
    assert!(allows(gets(), &request("GET", "/")));
    assert!(!allows(gets(), &stream()));
    // The clean sibling entry is void too.
    let mut rule = gets();
    rule.to.push(wire::Operation { ports: list(&["8080"]), ..Default::default() });
    assert!(!allows(rule, &stream()));
    // Also in its negative form, and in a condition.
    assert!(!allows(to(wire::Operation { not_methods: list(&["PUT"]), ..Default::default() }), &stream()));
    assert!(!allows(when("request.headers[x]", &[], &["a"]), &stream()));
}

#[test]
fn on_an_opaque_stream_an_http_field_is_dropped_from_a_deny_rule() {
    assert!(denies(to(wire::Operation { methods: list(&["PUT"]), ..Default::default() }), &stream()));
    assert!(denies(to(wire::Operation { not_methods: list(&["GET"]), ..Default::default() }), &stream()));
    assert!(denies(when("request.headers[x]", &["a"], &[]), &stream()));
    // The rest of the rule still applies.
    let mut rule = nobody();
    rule.to = to(wire::Operation { methods: list(&["PUT"]), ..Default::default() }).to;
    assert!(!denies(rule, &stream()));
}

#[test]
fn a_port_needs_http_where_no_opaque_stream_could_pass() {
    let ledger = to(wire::Operation { ports: list(&["7000"]), ..Default::default() });
    let policies = valid(vec![allow(vec![gets(), ledger])]);
    assert!(policies.needs_http(8080));
    assert!(!policies.needs_http(7000));
    assert!(!valid(vec![]).needs_http(8080));
    assert!(!valid(vec![allow(vec![])]).needs_http(8080));
}
