//! An object of the law with flaws: all of them are told, and the rest of it can still be enforced.

use super::*;
use crate::wire;

fn flawed(spec: &str) -> (wire::Policy, Vec<u32>) {
    let Reading { resource, flaws } = reading(&policy(spec));
    let Some(Kind::AuthorizationPolicy(law)) = resource.map(|resource| resource.kind) else {
        panic!("{flaws:?}")
    };
    (law.policy, flaws.iter().map(|flaw| flaw.location.line).collect())
}

#[test]
fn every_flaw_of_a_law_is_told_at_once() {
    let (message, lines) = flawed(
        "  action: DENY
  selector: {matchLabels: {a: '*'}}
  rules:
    - from:
        - source: {principls: [a], namespaces: [n], ipBlocks: [x]}
        - {source: {namespaces: [m]}, when: 1}
      to: []
      extra: 1
    - to:
        - operation: {ports: [80], methods: [GET]}
        - 5
      when:
        - {key: source.ip, values: [10.0.0.1], note: x}
",
    );
    assert_eq!(message.unreadable, ["selector"]);
    assert_eq!(message.rules[0].unreadable, ["to", "extra"]);
    assert_eq!(message.rules[0].from[0].unreadable, ["principls"]);
    assert_eq!(message.rules[0].from[0].namespaces, ["n"]);
    assert_eq!(message.rules[0].from[1].unreadable, ["when"]);
    assert_eq!(message.rules[1].to[0].unreadable, ["ports"]);
    assert_eq!(message.rules[1].to[0].methods, ["GET"]);
    assert_eq!(message.rules[1].to[1].unreadable.len(), 1);
    assert_eq!(message.rules[1].when[0].unreadable, ["note"]);
    for line in [6, 9, 10, 11, 12, 14, 15, 17] {
        assert!(lines.contains(&line), "line {line} of {lines:?}");
    }
    assert!(lines.is_sorted());
}

#[test]
fn an_action_that_is_none_denies_and_says_what_it_could_not_read() {
    for spec in ["  action: deny\n  rules: [{}]\n", "  action:\n  rules: [{}]\n", "  action: 5\n"] {
        let (message, _) = flawed(spec);
        assert_eq!(message.action, i32::from(wire::Action::Deny), "{spec}");
        assert_eq!(message.unreadable, ["action"], "{spec}");
    }
    let (unknown, _) = flawed("  selctor: {}\n  rules: [{}]\n");
    assert_eq!(unknown.action, i32::from(wire::Action::Allow));
    assert_eq!(unknown.unreadable, ["selctor"]);
}

#[test]
fn a_law_without_a_spec_or_with_fields_beside_it_is_enforced_as_far_as_it_denies() {
    let text = policy("").replace("spec:\n", "action: DENY\n");
    let Reading { resource, flaws } = reading(&text);
    let Some(Kind::AuthorizationPolicy(law)) = resource.map(|resource| resource.kind) else {
        panic!("{flaws:?}")
    };
    assert_eq!(law.policy.action, i32::from(wire::Action::Deny));
    assert!(law.policy.unreadable.contains(&"action".to_owned()), "{:?}", law.policy.unreadable);
    let what: Vec<_> = flaws.iter().map(|flaw| flaw.what.as_str()).collect();
    assert!(what.iter().any(|what| what.contains("spec is missing")), "{what:?}");
    assert!(what.iter().any(|what| what.contains("action is no field")), "{what:?}");
}

#[test]
fn selector_and_target_refs_together_are_invalid_and_still_govern() {
    let Reading { resource, flaws } = reading(&policy(
        "  selector: {matchLabels: {a: b}}\n  targetRefs: [{kind: Service, name: x}]\n  rules: [{}]\n",
    ));
    let Some(Kind::AuthorizationPolicy(law)) = resource.map(|resource| resource.kind) else {
        panic!("{flaws:?}")
    };
    assert_eq!(flaws.len(), 1);
    assert!(law.attachment.targets.is_empty() && law.attachment.scope.selector["a"] == "b");
    assert_eq!(law.policy.unreadable, ["selector"]);
}

#[test]
fn what_names_no_object_is_nothing() {
    for text in [
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {}\n",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: a}\nspec: {}\n",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: 5}\nspec: {}\n",
        "apiVersion: security.istio.io/v2\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n",
        "kind: AuthorizationPolicy\n",
        "5\n",
    ] {
        let Reading { resource, flaws } = reading(text);
        assert_eq!(resource, None, "{text}");
        assert!(!flaws.is_empty(), "{text}");
    }
    let odd = reading(&policy("  {}\n").replace("{name:", "{created: 5, labels: {a: 1}, name:"));
    assert_eq!((odd.resource.is_some(), odd.flaws.len()), (true, 2), "{:?}", odd.flaws);
}

#[test]
fn an_allow_policy_of_which_nobody_knows_whether_it_is_a_dry_run_allows_nothing() {
    let unquoted = |spec: &str| {
        let text = policy(spec).replace("{name:", "{annotations: {istio.io/dry-run: true}, name:");
        let Some(Kind::AuthorizationPolicy(law)) = reading(&text).resource.map(|one| one.kind) else {
            panic!()
        };
        law.policy
    };
    let allow = unquoted("  rules: [{}]\n");
    assert!(!allow.dry_run && !allow.unreadable.is_empty(), "{allow:?}");
    let deny = unquoted("  action: DENY\n  rules: [{to: [{operation: {methods: [PUT]}}]}]\n");
    assert!(!deny.dry_run && deny.unreadable.is_empty(), "it is enforced as written: {deny:?}");
}

#[test]
fn keys_that_are_numbers_or_truths_are_texts_as_kubernetes_reads_them() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {1: x, true: y, 'b': z}}\n";
    let labels = only(text).metadata.labels;
    assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), ["1", "b", "true"]);
    let twice = only_error(&text.replace("true: y", "'1': y"));
    assert!(twice.what.contains("duplicate mapping key: 1"), "{twice}");
}

#[test]
fn a_flaw_of_the_whole_spec_hides_none_of_its_fields() {
    let (_, lines) = flawed("  action: CUSTOM\n  rules:\n    - from: [{source: {principals: [a]}}]\n");
    assert_eq!(lines, [4, 7], "no provider, and a source that no authorizer can be asked about");
}
