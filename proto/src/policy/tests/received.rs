//! What is refused at load (policy semantics 1.9), and what becomes of it when it comes over the wire nevertheless.

use super::*;
use crate::features;

fn flaw(policy: wire::Policy) -> PolicyFlaw {
    Policy::from_wire(policy).expect_err("it is invalid").remove(0)
}

fn broken() -> Vec<(wire::Rule, &'static str)> {
    let source = |set: fn(&mut wire::Source)| {
        let mut source = wire::Source::default();
        set(&mut source);
        from(source)
    };
    let operation = |set: fn(&mut wire::Operation)| {
        let mut operation = wire::Operation::default();
        set(&mut operation);
        to(operation)
    };
    vec![
        (source(|_| {}), "rules[0].from[0].source"),
        (operation(|_| {}), "rules[0].to[0].operation"),
        (source(|s| s.principals = list(&[""])), "rules[0].from[0].source.principals[0]"),
        (source(|s| s.ip_blocks = list(&["10.0.0.0/33"])), "rules[0].from[0].source.ipBlocks[0]"),
        (source(|s| s.not_ip_blocks = list(&["host"])), "rules[0].from[0].source.notIpBlocks[0]"),
        (source(|s| s.service_accounts = list(&["a/b/c"])), "rules[0].from[0].source.serviceAccounts[0]"),
        (source(|s| s.service_accounts = list(&["web*"])), "rules[0].from[0].source.serviceAccounts[0]"),
        (
            source(|s| (s.service_accounts, s.namespaces) = (list(&["a"]), list(&["shop"]))),
            "rules[0].from[0].source",
        ),
        (source(|s| s.service_accounts = vec!["a".to_owned(); 17]), "rules[0].from[0].source"),
        (operation(|o| o.ports = list(&["65536"])), "rules[0].to[0].operation.ports[0]"),
        (operation(|o| o.ports = list(&["+80"])), "rules[0].to[0].operation.ports[0]"),
        (operation(|o| o.paths = list(&["/{*}/{**}/{*}"])), "rules[0].to[0].operation.paths[0]"),
        (when("source.name", &["a"], &[]), "rules[0].when[0].key"),
        (when("request.headers[a b]", &["a"], &[]), "rules[0].when[0].key"),
        (when("request.headers", &["a"], &[]), "rules[0].when[0].key"),
        (when("request.auth.claims", &["a"], &[]), "rules[0].when[0].key"),
        (when("request.auth.claims[a", &["a"], &[]), "rules[0].when[0].key"),
        (when("request.auth.claims[]", &["a"], &[]), "rules[0].when[0].key"),
        (when("request.auth.claims[a]b", &["a"], &[]), "rules[0].when[0].key"),
        (when("source.serviceaccount", &["a"], &[]), "rules[0].when[0].key"),
        (when("destination.labels[app]", &["a"], &[]), "rules[0].when[0].key"),
        (when("experimental.envoy.filters.a", &["a"], &[]), "rules[0].when[0].key"),
        (when("source.ip", &[], &[]), "rules[0].when[0]"),
        (when("source.trustDomain", &["a/b"], &[]), "rules[0].when[0].values[0]"),
    ]
}

#[test]
fn an_invalid_rule_is_refused_at_load_and_its_place_is_named() {
    for (rule, place) in broken() {
        assert_eq!(flaw(allow(vec![rule.clone()])).place(), place, "{rule:?}");
        assert_eq!(flaw(deny(vec![rule])).place(), place);
    }
    assert_eq!(flaw(deny(vec![])).place(), "");
    assert_eq!(flaw(allow(vec![wire::Rule::default(); 513])).place(), "rules");
    assert!(flaw(wire::Policy { action: 9, ..allow(vec![]) }).unsupported);
}

#[test]
fn an_invalid_rule_from_the_wire_allows_nothing_and_denies_everything() {
    for (rule, place) in broken() {
        let void = received(vec![allow(vec![rule.clone()])]);
        assert!(!passes(&void, &request("GET", "/")), "{place}");
        assert!(
            void.complaints().iter().any(|complaint| complaint.contains(place)),
            "{:?}",
            void.complaints()
        );

        let wide = received(vec![deny(vec![rule])]);
        assert!(!passes(&wide, &request("GET", "/")), "{place}");
        assert!(!passes(&wide, &stream()), "{place}");
        assert!(!wide.complaints().is_empty());
    }
    assert!(!passes(&received(vec![deny(vec![])]), &stream()));
    let never = when("source.namespace", &["nowhere"], &[]);
    assert!(
        !passes(&received(vec![deny(vec![never; 513])]), &stream()),
        "rules beyond the bound are not lost"
    );
}

#[test]
fn a_sound_rule_beside_a_broken_one_still_allows() {
    let broken = when("source.ip", &["host"], &[]);
    let policies = received(vec![allow(vec![broken, when("source.namespace", &["shop"], &[])])]);
    assert!(passes(&policies, &stream()));
}

#[test]
fn a_feature_that_is_not_known_voids_an_allow_and_widens_a_deny() {
    let requires = list(&[features::POLICY_V1, "policy/v9"]);
    let known = when("source.namespace", &["nowhere"], &[]);

    let void =
        received(vec![wire::Policy { requires: requires.clone(), ..allow(vec![wire::Rule::default()]) }]);
    assert!(!passes(&void, &stream()));
    let wide = received(vec![wire::Policy { requires: requires.clone(), ..deny(vec![known]) }]);
    assert!(!passes(&wide, &stream()));
    let empty = received(vec![wire::Policy { requires, ..deny(vec![]) }]);
    assert!(!passes(&empty, &stream()));
    for policies in [&void, &wide, &empty] {
        assert!(policies.complaints().iter().any(|complaint| complaint.contains("policy/v9")));
    }
}

#[test]
fn an_action_that_is_not_known_denies_everything() {
    let policies = received(vec![wire::Policy { action: 7, ..allow(vec![wire::Rule::default()]) }]);
    assert!(!passes(&policies, &stream()));
    assert!(policies.complaints()[0].contains("action 7"));
}

#[test]
fn a_valid_policy_travels_with_what_it_requires() {
    let policy = Policy::from_wire(allow(vec![when("source.namespace", &["shop"], &[])])).unwrap();
    let sent = policy.to_wire();
    assert_eq!(sent.requires, [features::POLICY_V1]);
    assert_eq!(Policy::from_wire(sent), Ok(policy));
}

#[test]
fn what_stands_in_for_an_unreadable_policy_denies_everything() {
    let policies = PolicySet::compile(&[Policy::deny_everything("shop", "broken")], trust(&local()));
    assert!(!passes(&policies, &stream()));
    assert_eq!(reason(&policies, &stream()), "policy shop/broken rule 1: it denies everything");
}

#[test]
fn too_many_policies_are_refused() {
    let set = wire::PolicySet { policies: vec![allow(vec![]); 5000], ..Default::default() };
    assert_eq!(PolicySet::from_wire(set, trust(&local())).unwrap_err(), PolicyError::TooMany(5000));
}

#[test]
fn an_author_is_warned_of_values_that_match_less_than_they_seem_to() {
    let prod = TrustDomain::parse("prod.example").unwrap();
    let mut rule =
        from(wire::Source { principals: list(&["cluster.local/ns/shop/*"]), ..Default::default() });
    rule.to = to(wire::Operation { paths: list(&["/a?b", "/a#b", "/fine"]), ..Default::default() }).to;
    let policy = Policy::from_wire(allow(vec![rule])).unwrap();

    let warnings = policy.warnings(trust(&prod));

    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("cluster.local/ns/shop/*"));
    assert!(warnings.iter().all(|warning| warning.starts_with("policy shop/allow: ")));
    assert_eq!(policy.warnings(trust(&local())).len(), 2);
    assert_eq!(PolicySet::compile(&[policy], trust(&prod)).complaints().len(), 3);
}
