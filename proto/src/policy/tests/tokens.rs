//! What policies see of a token (policy semantics 1.5, 1.6): its principal and its claims.

use serde_json::json;

use super::*;

fn users(patterns: &[&str]) -> wire::Rule {
    from(wire::Source { request_principals: list(patterns), ..Default::default() })
}

fn no_users(patterns: &[&str]) -> wire::Rule {
    from(wire::Source { not_request_principals: list(patterns), ..Default::default() })
}

#[test]
fn a_request_principal_is_parted_at_its_last_slash_and_both_parts_match_by_themselves() {
    let alice = by_user(json!({"iss": "https://login.example/realm", "sub": "alice@example.com"}));
    for (pattern, expected) in [
        ("https://login.example/realm/alice@example.com", true),
        ("https://login.example/realm/*", true),
        ("https://login.example/*", false),
        ("https://login.example*", false),
        ("*/alice@example.com", true),
        ("*/alice*", true),
        ("*login.example/realm/alice@example.com", true),
        ("*/realm/alice@example.com", true),
        ("https://login.example/realm/*@example.com", true),
        ("https://login.example/realm/bob", false),
        ("https://login.example/realm/", false),
        ("*", true),
        // Without a slash the star says which part is meant.
        ("*@example.com", true),
        ("*@example.org", false),
        ("alice*", false),
        ("alice@example.com", false),
    ] {
        assert_eq!(allows(users(&[pattern]), &alice), expected, "{pattern}");
        assert_eq!(denies(users(&[pattern]), &alice), expected, "{pattern}");
        assert_eq!(allows(no_users(&[pattern]), &alice), !expected, "not {pattern}");
        assert_eq!(allows(when("request.auth.principal", &[pattern], &[]), &alice), expected, "{pattern}");
    }
}

#[test]
fn a_request_principal_without_a_slash_never_names_a_subject_alone() {
    let joe = by_user(json!({"iss": "joe", "sub": "alice"}));
    for (pattern, expected) in
        [("jo*", true), ("joe*", true), ("*ice", true), ("al*", false), ("joe", false), ("alice", false)]
    {
        assert_eq!(allows(users(&[pattern]), &joe), expected, "{pattern}");
        assert_eq!(denies(users(&[pattern]), &joe), expected, "{pattern}");
    }
}

#[test]
fn a_request_principal_needs_issuer_and_subject() {
    for claims in [
        json!({"iss": "login"}),
        json!({"sub": "alice"}),
        json!({"iss": "", "sub": "alice"}),
        json!({"iss": "login", "sub": ""}),
        json!({"iss": "login", "sub": 7}),
        json!({"iss": ["login"], "sub": "alice"}),
    ] {
        let facts = by_user(claims.clone());
        for pattern in ["*", "*/alice", "login/*", "alice"] {
            assert!(!allows(users(&[pattern]), &facts), "{pattern} on {claims}");
            assert!(allows(no_users(&[pattern]), &facts), "not {pattern} on {claims}");
        }
    }
}

#[test]
fn without_a_token_positives_fail_and_negatives_hold() {
    let facts = request("GET", "/");
    assert!(!allows(users(&["*"]), &facts));
    assert!(allows(no_users(&["*"]), &facts));
    assert!(denies(no_users(&["*"]), &facts), "who shows no token is denied");
    for key in ["request.auth.audiences", "request.auth.presenter", "request.auth.claims[a]"] {
        assert!(!allows(when(key, &["*"], &[]), &facts), "{key}");
        assert!(allows(when(key, &[], &["*"]), &facts), "{key}");
    }
}

#[test]
fn a_claim_is_a_text_or_a_list_with_a_text() {
    let facts = by_user(json!({
        "aud": ["orders", "web"], "azp": "client", "group": "admin", "groups": ["dev", "ops", 7],
        "level": 7, "root": true, "none": null, "realm": {"roles": ["reader"], "name": "shop"}, "empty": [],
    }));
    for (key, value, expected) in [
        ("request.auth.audiences", "web", true),
        ("request.auth.audiences", "we", false),
        ("request.auth.audiences", "w*", true),
        ("request.auth.presenter", "client", true),
        ("request.auth.claims[group]", "admin", true),
        ("request.auth.claims[group]", "*min", true),
        ("request.auth.claims[group]", "Admin", false),
        ("request.auth.claims[groups]", "ops", true),
        ("request.auth.claims[groups]", "*", true),
        ("request.auth.claims[groups]", "7", false),
        ("request.auth.claims[level]", "7", false),
        ("request.auth.claims[level]", "*", false),
        ("request.auth.claims[root]", "true", false),
        ("request.auth.claims[none]", "*", false),
        ("request.auth.claims[empty]", "*", false),
        ("request.auth.claims[realm][roles]", "reader", true),
        ("request.auth.claims[realm][name]", "shop", true),
        ("request.auth.claims[realm][other]", "*", false),
        ("request.auth.claims[realm]", "*", false),
        ("request.auth.claims[realm.name]", "shop", false),
        ("request.auth.claims[missing]", "*", false),
    ] {
        assert_eq!(allows(when(key, &[value], &[]), &facts), expected, "{key} {value}");
        assert_eq!(denies(when(key, &[value], &[]), &facts), expected, "{key} {value}");
        assert_eq!(allows(when(key, &[], &[value]), &facts), !expected, "{key} not {value}");
    }
}

#[test]
fn scope_permission_and_what_a_rule_names_are_lists_of_words() {
    let mut facts = by_user(json!({
        "scope": "read  write", "permission": "a b", "roles": "x y", "plain": "p q",
        "inner": {"scope": "read write"},
    }));
    let token = facts.request.as_mut().unwrap().token.as_mut().unwrap();
    token.spaced = Arc::from(["roles".to_owned()]);
    for (key, value, expected) in [
        ("scope", "write", true),
        ("scope", "read  write", false),
        ("scope", "*", true),
        ("permission", "b", true),
        ("roles", "y", true),
        ("plain", "q", false),
        ("plain", "p q", true),
        ("inner][scope", "read", false),
    ] {
        let key = format!("request.auth.claims[{key}]");
        assert_eq!(allows(when(&key, &[value], &[]), &facts), expected, "{key} {value}");
    }
    let listed = by_user(json!({"scope": ["read write", "x"]}));
    assert!(allows(when("request.auth.claims[scope]", &["read write"], &[]), &listed));
    assert!(!allows(when("request.auth.claims[scope]", &["read"], &[]), &listed));
}

#[test]
fn on_an_opaque_stream_a_token_voids_an_allow_rule_and_is_dropped_from_a_deny_rule() {
    for rule in [
        users(&["*"]),
        no_users(&["*"]),
        when("request.auth.claims[a]", &["b"], &[]),
        when("request.auth.principal", &[], &["b/c"]),
        when("request.auth.audiences", &["b"], &[]),
    ] {
        assert!(!allows(rule.clone(), &stream()), "{rule:?}");
        assert!(denies(rule.clone(), &stream()), "{rule:?}");
    }
    let mut rule = users(&["*"]);
    rule.from.push(wire::Source { namespaces: list(&["shop"]), ..Default::default() });
    assert!(!allows(rule.clone(), &stream()), "also with a sound sibling");
    assert!(denies(rule, &stream()));
}

#[test]
fn a_principal_without_a_slash_is_warned_of() {
    let policy = Policy::from_wire(allow(vec![users(&["*@example.com", "a/b", "*"])])).unwrap();
    let warnings = policy.warnings(trust(&local()));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("*@example.com"), "{warnings:?}");
}
