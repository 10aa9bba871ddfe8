//! A decision looks at the rules that could hold, however many others there are. Counted, not timed.

use super::*;

/// So many ALLOW rules, of which the request is let in by the last one at most.
fn many(count: usize, rule: impl Fn(usize) -> wire::Rule) -> PolicySet {
    let rules: Vec<wire::Rule> = (0..count).map(rule).collect();
    let policies = rules.chunks(512).enumerate();
    valid(
        policies.map(|(at, rules)| written(wire::Action::Allow, &format!("p{at}"), rules.to_vec())).collect(),
    )
}

fn looked_at(policies: &PolicySet, facts: &Facts) -> usize {
    policies.allow.candidates(facts, usize::MAX).len()
}

fn operation_of(paths: &[&str]) -> wire::Operation {
    wire::Operation { paths: list(paths), methods: list(&["GET"]), ..Default::default() }
}

#[test]
fn ten_thousand_rules_that_cannot_match_cost_nothing() {
    let identities = |index: usize| {
        let account = format!("cluster.local/ns/shop/sa/other-{index}");
        from(wire::Source { principals: vec![account], ..Default::default() })
    };
    let namespaces = |index: usize| {
        from(wire::Source { principals: vec![format!("cluster.local/ns/n{index}/*")], ..Default::default() })
    };
    let accounts = |index: usize| {
        from(wire::Source { service_accounts: vec![format!("shop/other-{index}")], ..Default::default() })
    };
    let ends = |index: usize| {
        from(wire::Source { principals: vec![format!("*/ns/n{index}/sa/web")], ..Default::default() })
    };
    let paths = |index: usize| to(operation_of(&[&format!("/items/{index}")]));
    let prefixes = |index: usize| to(operation_of(&[&format!("/items/{index}/*")]));
    let templates = |index: usize| to(operation_of(&[&format!("/items/{index}/{{*}}/x")]));
    let hosts =
        |index: usize| to(wire::Operation { hosts: vec![format!("h{index}.shop")], ..Default::default() });
    let users = |index: usize| {
        from(wire::Source { request_principals: vec![format!("login/u{index}")], ..Default::default() })
    };
    let conditions = |index: usize| when("source.namespace", &[&format!("n{index}")], &[]);
    // All of one namespace: the path tells them apart.
    let both = |index: usize| wire::Rule { to: prefixes(index).to, ..from_shop() };
    let shapes: [&dyn Fn(usize) -> wire::Rule; 11] = [
        &identities,
        &namespaces,
        &accounts,
        &ends,
        &paths,
        &prefixes,
        &templates,
        &hosts,
        &users,
        &conditions,
        &both,
    ];
    for (at, shape) in shapes.into_iter().enumerate() {
        assert_eq!(looked_at(&many(10_000, shape), &request("GET", "/other")), 0, "shape {at}");
    }
}

fn from_shop() -> wire::Rule {
    from(wire::Source { namespaces: list(&["shop"]), ..Default::default() })
}

#[test]
fn only_the_rules_of_a_paths_beginning_are_looked_at() {
    let policies = many(1_000, |index| to(operation_of(&[&format!("/items/{index}/*")])));
    assert_eq!(looked_at(&policies, &request("GET", "/items/7/a")), 1);
    assert_eq!(looked_at(&policies, &request("GET", "/items/77/a")), 1);
    assert_eq!(looked_at(&policies, &stream()), 0, "all are void there");
}

#[test]
fn rules_without_anything_exact_are_always_looked_at() {
    let policies = many(100, |index| when("request.headers[x]", &[&format!("{index}")], &[]));
    assert_eq!(looked_at(&policies, &request("GET", "/")), 100);
}

#[test]
fn of_an_opaque_stream_deny_rules_on_requests_are_looked_at() {
    let rules = (0..100).map(|index| to(operation_of(&[&format!("/items/{index}")]))).collect();
    let policies = valid(vec![deny(rules)]);
    assert_eq!(policies.deny.candidates(&request("GET", "/"), usize::MAX).len(), 0);
    assert!(!passes(&policies, &stream()), "its fields are dropped there");
}
