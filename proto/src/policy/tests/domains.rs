//! Trust domains and their aliases (policy semantics 1.5, 1.8), and where a client comes from (`remote.ip`).

use super::*;

fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

/// Is a peer let in by this rule, in a mesh `new.example` that was `old.example` and `older.example`?
fn admits(rule: wire::Rule, peer: &str) -> bool {
    let (local, aliases) = (domain("new.example"), [domain("old.example"), domain("older.example")]);
    let policies = wire::PolicySet { policies: vec![allow(vec![rule])], ..Default::default() };
    let set = PolicySet::from_wire(policies, Trust { local: &local, aliases: &aliases }).unwrap();
    passes(&set, &Facts { peer: Some(id(&format!("spiffe://{peer}"))), ..stream() })
}

#[test]
fn a_whole_principal_of_one_of_our_domains_is_one_of_all_of_them() {
    for (pattern, peer, expected) in [
        ("new.example/ns/shop/sa/web", "new.example/ns/shop/sa/web", true),
        ("new.example/ns/shop/sa/web", "old.example/ns/shop/sa/web", true),
        ("old.example/ns/shop/sa/web", "new.example/ns/shop/sa/web", true),
        ("old.example/ns/shop/sa/web", "older.example/ns/shop/sa/web", true),
        ("cluster.local/ns/shop/sa/web", "old.example/ns/shop/sa/web", true),
        ("cluster.local/ns/shop/sa/web", "cluster.local/ns/shop/sa/web", false),
        ("old.example/ns/shop/sa/web", "new.example/ns/shop/sa/other", false),
        ("foreign.example/ns/shop/sa/web", "new.example/ns/shop/sa/web", false),
        ("foreign.example/ns/shop/sa/web", "foreign.example/ns/shop/sa/web", true),
        ("new.example/ns/shop/sa/*", "old.example/ns/shop/sa/web", true),
        // A domain with a star that is one of ours.
        ("*.example/ns/shop/sa/web", "old.example/ns/shop/sa/web", true),
        ("*.example/ns/shop/sa/web", "foreign.example/ns/shop/sa/web", true),
        ("*w.example/ns/shop/sa/web", "old.example/ns/shop/sa/web", true),
        ("*w.example/ns/shop/sa/web", "shallow.example/ns/shop/sa/web", true),
        ("old*/ns/shop/sa/web", "new.example/ns/shop/sa/web", true),
        // Any domain is any domain.
        ("*/ns/shop/sa/web", "foreign.example/ns/shop/sa/web", true),
        // Fewer or more parts are as written.
        ("old.example/ns/shop/*", "new.example/ns/shop/sa/web", false),
        ("old.example/ns/shop/*", "old.example/ns/shop/sa/web", true),
        ("cluster.local/*", "new.example/ns/shop/sa/web", false),
    ] {
        let rule = from(wire::Source { principals: list(&[pattern]), ..Default::default() });
        assert_eq!(admits(rule, peer), expected, "{pattern} on {peer}");
        assert_eq!(admits(when("source.principal", &[pattern], &[]), peer), expected, "{pattern} on {peer}");
        let rule = from(wire::Source { not_principals: list(&[pattern]), ..Default::default() });
        assert_eq!(admits(rule, peer), !expected, "not {pattern} on {peer}");
    }
}

#[test]
fn a_trust_domain_of_ours_is_all_of_ours() {
    for (pattern, peer, expected) in [
        ("old.example", "new.example", true),
        ("cluster.local", "older.example", true),
        ("foreign.example", "new.example", false),
        ("foreign.example", "foreign.example", true),
        ("old*", "new.example", true),
        ("old*", "oldest.example", true),
        ("foreign*", "foreign.example", true),
        ("*.example", "foreign.example", true),
        ("*", "foreign.example", true),
    ] {
        let peer = format!("{peer}/ns/shop/sa/web");
        let rule = from(wire::Source { trust_domains: list(&[pattern]), ..Default::default() });
        assert_eq!(admits(rule, &peer), expected, "{pattern} on {peer}");
        assert_eq!(admits(when("source.trustDomain", &[pattern], &[]), &peer), expected, "{pattern}");
        let rule = from(wire::Source { not_trust_domains: list(&[pattern]), ..Default::default() });
        assert_eq!(admits(rule, &peer), !expected, "not {pattern} on {peer}");
    }
}

#[test]
fn without_a_peer_a_trust_domain_is_missing() {
    let anonymous = Facts { peer: None, ..stream() };
    let rule = |source| from(source);
    assert!(!allows(rule(wire::Source { trust_domains: list(&["*"]), ..Default::default() }), &anonymous));
    assert!(allows(rule(wire::Source { not_trust_domains: list(&["*"]), ..Default::default() }), &anonymous));
}

#[test]
fn a_service_account_and_a_namespace_are_of_any_domain() {
    let rule = from(wire::Source { service_accounts: list(&["shop/web"]), ..Default::default() });
    assert!(admits(rule, "foreign.example/ns/shop/sa/web"));
    let rule = from(wire::Source { namespaces: list(&["shop"]), ..Default::default() });
    assert!(admits(rule, "foreign.example/ns/shop/sa/web"));
}

#[test]
fn a_principal_with_its_scheme_never_matches_and_is_warned_of() {
    let written = "spiffe://cluster.local/ns/shop/sa/web";
    let rule = || from(wire::Source { principals: list(&[written]), ..Default::default() });
    assert!(!allows(rule(), &stream()));
    assert!(!denies(rule(), &stream()));
    assert!(!allows(when("source.principal", &[written], &[]), &stream()));
    let beside = from(wire::Source { principals: list(&[written, "*"]), ..Default::default() });
    assert!(allows(beside, &stream()));
    let policy = Policy::from_wire(deny(vec![rule()])).unwrap();
    assert!(policy.warnings(trust(&local()))[0].contains("without spiffe://"));
}

#[test]
fn a_client_address_is_matched_on_opaque_streams_too() {
    let behind = |facts: Facts| Facts { remote: "192.0.2.7".parse().unwrap(), ..facts };
    for facts in [behind(stream()), behind(request("GET", "/"))] {
        for (block, expected) in [("192.0.2.0/24", true), ("192.0.2.7", true), ("10.77.0.0/16", false)] {
            let rule = from(wire::Source { remote_ip_blocks: list(&[block]), ..Default::default() });
            assert_eq!(allows(rule.clone(), &facts), expected, "{block}");
            assert_eq!(denies(rule, &facts), expected, "{block}");
            assert_eq!(allows(when("remote.ip", &[block], &[]), &facts), expected, "{block}");
            let rule = from(wire::Source { not_remote_ip_blocks: list(&[block]), ..Default::default() });
            assert_eq!(allows(rule, &facts), !expected, "not {block}");
        }
        let direct = from(wire::Source { ip_blocks: list(&["10.77.0.5"]), ..Default::default() });
        assert!(allows(direct, &facts), "the direct peer is another address");
    }
}
