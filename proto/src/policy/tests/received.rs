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

fn unreadable() -> Vec<(&'static str, wire::Rule)> {
    let text = |part: &str| list(&[part]);
    vec![
        ("a field of a source", from(wire::Source { unreadable: text("principal"), ..Default::default() })),
        ("a field of an operation", to(wire::Operation { unreadable: text("path"), ..Default::default() })),
        ("a rule", wire::Rule { unreadable: text("frm"), ..Default::default() }),
        (
            "a condition",
            wire::Rule {
                when: vec![wire::Condition { unreadable: text("valuess"), ..Default::default() }],
                ..Default::default()
            },
        ),
        (
            "a list of which a part was read",
            from(wire::Source {
                namespaces: list(&["nowhere"]),
                unreadable: text("namespaces[1]"),
                ..Default::default()
            }),
        ),
        (
            "entries of which a part was read",
            wire::Rule {
                unreadable: text("from[1]"),
                ..from(wire::Source { namespaces: list(&["nowhere"]), ..Default::default() })
            },
        ),
        (
            "values of a condition of which a part was read",
            wire::Rule {
                when: vec![wire::Condition {
                    key: "source.namespace".to_owned(),
                    values: list(&["nowhere"]),
                    unreadable: text("values[0]"),
                    ..Default::default()
                }],
                ..Default::default()
            },
        ),
    ]
}

#[test]
fn a_part_that_cannot_be_read_voids_an_allow_rule_and_is_dropped_from_any_other() {
    for (what, rule) in unreadable() {
        assert!(!passes(&received(vec![allow(vec![rule.clone()])]), &stream()), "{what}");
        assert!(!passes(&received(vec![deny(vec![rule.clone()])]), &stream()), "{what}");
        let audit = received(vec![written(wire::Action::Audit, "audit", vec![rule.clone()])]);
        assert!(audited_by(&audit, &stream()).is_some(), "{what}");
        assert!(audit.complaints().iter().any(|line| line.contains("cannot be read")), "{what}");
        assert!(Policy::from_wire(allow(vec![rule])).is_err(), "{what}");
    }
}

#[test]
fn the_rest_of_a_deny_rule_applies_where_a_field_was_dropped() {
    let elsewhere = || wire::Source { namespaces: list(&["nowhere"]), ..Default::default() };
    for source in [
        wire::Source { unreadable: list(&["princ"]), ..elsewhere() },
        wire::Source { ip_blocks: list(&["300.0.0.1"]), ..elsewhere() },
        wire::Source { not_ip_blocks: list(&["x"]), ..elsewhere() },
        wire::Source { trust_domains: list(&["a/b"]), ..elsewhere() },
    ] {
        assert!(passes(&received(vec![deny(vec![from(source.clone())])]), &stream()), "{source:?}");
        let here = wire::Source { namespaces: list(&["shop"]), ..source };
        assert!(!passes(&received(vec![deny(vec![from(here.clone())])]), &stream()), "{here:?}");
    }
    let mut rule = when("source.nam", &["a"], &[]);
    rule.from = vec![elsewhere()];
    assert!(passes(&received(vec![deny(vec![rule])]), &stream()));
}

#[test]
fn of_a_list_with_a_bad_value_a_deny_rule_drops_all_and_of_a_negative_one_only_that() {
    let positive = wire::Source { ip_blocks: list(&["192.0.2.1", "x"]), ..Default::default() };
    assert!(
        !passes(&received(vec![deny(vec![from(positive)])]), &stream()),
        "the bad one may have been ours"
    );
    let negative = |good: &str| wire::Source { not_ip_blocks: list(&[good, "x"]), ..Default::default() };
    assert!(passes(&received(vec![deny(vec![from(negative("10.77.0.5"))])]), &stream()));
    assert!(!passes(&received(vec![deny(vec![from(negative("192.0.2.1"))])]), &stream()));
}

#[test]
fn a_policy_that_cannot_be_read_as_a_whole_denies_everything_or_allows_nothing() {
    let nowhere = || vec![when("source.namespace", &["nowhere"], &[])];
    let unread = |policy| wire::Policy { unreadable: list(&["rulez"]), ..policy };
    let denying = received(vec![unread(deny(nowhere()))]);
    assert!(!passes(&denying, &stream()));
    assert_eq!(denying.complaints().len(), 1, "told once: {:?}", denying.complaints());
    assert!(denying.complaints()[0].starts_with("policy shop/deny: rulez cannot be read"));
    let custom = wire::Policy { provider: "x".to_owned(), ..written(wire::Action::Custom, "c", nowhere()) };
    assert!(!passes(&received(vec![unread(custom)]), &stream()));
    assert!(!passes(&received(vec![unread(allow(vec![wire::Rule::default()]))]), &stream()));
    let beside = vec![
        wire::Policy { unreadable: list(&["action"]), ..allow(nowhere()) },
        allow(vec![wire::Rule::default()]),
    ];
    assert!(!passes(&received(beside), &stream()), "an action that cannot be read may have been DENY");
}

#[test]
fn a_custom_policy_looks_at_no_identity_and_names_its_provider() {
    let custom = |provider: &str, rule: wire::Rule| wire::Policy {
        provider: provider.to_owned(),
        ..written(wire::Action::Custom, "custom", vec![rule])
    };
    for (source, place) in [
        (wire::Source { principals: list(&["*"]), ..Default::default() }, "principals"),
        (wire::Source { not_principals: list(&["*"]), ..Default::default() }, "notPrincipals"),
        (wire::Source { namespaces: list(&["*"]), ..Default::default() }, "namespaces"),
        (wire::Source { service_accounts: list(&["a"]), ..Default::default() }, "serviceAccounts"),
        (wire::Source { trust_domains: list(&["a"]), ..Default::default() }, "trustDomains"),
        (wire::Source { request_principals: list(&["*"]), ..Default::default() }, "requestPrincipals"),
    ] {
        let flaw = flaw(custom("ext", from(source)));
        assert_eq!(flaw.place(), format!("rules[0].from[0].source.{place}"));
    }
    for key in [
        "source.principal",
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
    ] {
        assert_eq!(flaw(custom("ext", when(key, &["a"], &[]))).place(), "rules[0].when[0].values", "{key}");
    }
    assert!(flaw(custom("", wire::Rule::default())).what.contains("provider"));
    assert_eq!(
        flaw(wire::Policy { provider: "ext".to_owned(), ..deny(vec![wire::Rule::default()]) }).place(),
        "provider"
    );
    assert!(
        flaw(wire::Policy { rules: vec![], ..custom("ext", wire::Rule::default()) }).what.contains("rules")
    );
    assert!(Policy::from_wire(custom("ext", when("remote.ip", &["10.0.0.1"], &[]))).is_ok());
}

#[test]
fn an_allow_policy_that_names_a_provider_may_have_meant_to_ask_it() {
    let confused = wire::Policy { provider: "ext".to_owned(), ..allow(vec![wire::Rule::default()]) };
    assert!(!passes(&received(vec![confused]), &stream()));
    let narrow = || vec![when("source.namespace", &["nowhere"], &[])];
    let denying = wire::Policy { provider: "ext".to_owned(), ..deny(narrow()) };
    assert!(passes(&received(vec![denying]), &stream()), "it denies all that it would have asked about");
}

#[test]
fn all_flaws_of_a_policy_are_named() {
    let rules = vec![when("source.ip", &["a", "b"], &[]), when("nothing", &["a"], &[])];
    let flaws = Policy::from_wire(allow(rules)).unwrap_err();
    let places: Vec<String> = flaws.iter().map(PolicyFlaw::place).collect();
    assert_eq!(places, ["rules[0].when[0].values[0]", "rules[0].when[0].values[1]", "rules[1].when[0].key"]);
}

#[test]
fn what_the_first_version_does_not_know_requires_the_second() {
    let second = |policy: wire::Policy| {
        Policy::from_wire(policy).unwrap().to_wire().requires.contains(&features::POLICY_V2.to_owned())
    };
    assert!(!second(allow(vec![when("source.trustDomain", &["a"], &[])])));
    assert!(!second(deny(vec![to(wire::Operation { paths: list(&["/a"]), ..Default::default() })])));
    for rule in [
        when("request.auth.claims[a]", &["b"], &[]),
        when("remote.ip", &["10.0.0.1"], &[]),
        when("request.headers[:path]", &["/"], &[]),
        from(wire::Source { trust_domains: list(&["a"]), ..Default::default() }),
        from(wire::Source { not_request_principals: list(&["*"]), ..Default::default() }),
    ] {
        assert!(second(allow(vec![rule.clone()])), "{rule:?}");
    }
    assert!(second(wire::Policy { dry_run: true, ..allow(vec![]) }));
    assert!(second(written(wire::Action::Audit, "audit", vec![])));
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
