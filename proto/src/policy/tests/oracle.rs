//! Random laws and facts against a naive oracle, written from the text of the semantics and not from the code.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// What a field sees: of `None` (no such attribute) positives fail and negatives hold.
fn oracle_field(value: Option<&str>, values: &[String], not_values: &[String]) -> bool {
    let matches = |pattern: &String| {
        let Some(value) = value else { return false };
        if pattern == "*" {
            !value.is_empty()
        } else if let Some(end) = pattern.strip_prefix('*') {
            value.ends_with(end)
        } else if let Some(start) = pattern.strip_suffix('*') {
            value.starts_with(start)
        } else {
            value == pattern
        }
    };
    (values.is_empty() || values.iter().any(matches)) && !not_values.iter().any(matches)
}

fn oracle_rule(rule: &wire::Rule, facts: &Facts, is_deny: bool) -> bool {
    let principal = facts.peer.as_ref().map(WorkloadId::principal);
    let namespace = facts.peer.as_ref().map(|peer| peer.namespace().to_owned());
    let port = Some(facts.destination.port().to_string());
    let http = facts.request.as_ref();
    let method = http.map(|request| request.method.to_string());
    let path = http.map(|request| request.target.path.clone());
    let header = http.and_then(|request| Some(request.headers.get("x-tier")?.to_str().unwrap().to_owned()));
    let uses_http = |operation: &wire::Operation| {
        [&operation.methods, &operation.not_methods, &operation.paths, &operation.not_paths]
            .iter()
            .any(|list| !list.is_empty())
    };
    let is_header = |condition: &wire::Condition| condition.key.starts_with("request.headers");
    let rule_uses_http = rule.to.iter().any(uses_http) || rule.when.iter().any(is_header);
    if http.is_none() && rule_uses_http && !is_deny {
        return false;
    }
    let http_field = |value: &Option<String>, values: &[String], not_values: &[String]| {
        http.is_none() || oracle_field(value.as_deref(), values, not_values)
    };
    let from = rule.from.is_empty()
        || rule.from.iter().any(|source| {
            oracle_field(principal.as_deref(), &source.principals, &source.not_principals)
                && oracle_field(namespace.as_deref(), &source.namespaces, &source.not_namespaces)
        });
    let to = rule.to.is_empty()
        || rule.to.iter().any(|operation| {
            oracle_field(port.as_deref(), &operation.ports, &operation.not_ports)
                && http_field(&method, &operation.methods, &operation.not_methods)
                && http_field(&path, &operation.paths, &operation.not_paths)
        });
    let when = rule.when.iter().all(|condition| {
        if is_header(condition) {
            http_field(&header, &condition.values, &condition.not_values)
        } else {
            oracle_field(namespace.as_deref(), &condition.values, &condition.not_values)
        }
    });
    from && to && when
}

fn oracle(policies: &[wire::Policy], facts: &Facts) -> bool {
    let of = |action: wire::Action| policies.iter().filter(move |policy| policy.action == i32::from(action));
    let matches =
        |policy: &wire::Policy, is_deny| policy.rules.iter().any(|rule| oracle_rule(rule, facts, is_deny));
    if of(wire::Action::Deny).any(|policy| matches(policy, true)) {
        return false;
    }
    of(wire::Action::Allow).next().is_none() || of(wire::Action::Allow).any(|policy| matches(policy, false))
}

fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    // Most fields are absent, as in real policies; else few requests would pass.
    prop_oneof![
        3 => Just(vec![]),
        2 => vec(select(values).prop_map(str::to_owned), 1..3),
    ]
}

fn a_source() -> impl Strategy<Value = wire::Source> {
    let principals = &[
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/shop/*",
        "*/sa/web",
        "cluster.local/ns/bank/sa/teller",
        "*",
    ];
    let namespaces = &["shop", "bank", "sh*", "*"];
    (some_of(principals), some_of(principals), some_of(namespaces), some_of(namespaces))
        .prop_map(|(principals, not_principals, namespaces, not_namespaces)| wire::Source {
            principals,
            not_principals,
            namespaces,
            not_namespaces,
            ..Default::default()
        })
        .prop_filter("an empty source is invalid", |source| *source != wire::Source::default())
}

fn an_operation() -> impl Strategy<Value = wire::Operation> {
    let ports = &["8080", "7000"];
    let methods = &["GET", "DELETE", "P*"];
    let paths = &["/a", "/a*", "*.css", "/admin", "*"];
    (some_of(ports), some_of(ports), some_of(methods), some_of(methods), some_of(paths), some_of(paths))
        .prop_map(|(ports, not_ports, methods, not_methods, paths, not_paths)| wire::Operation {
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
            ..Default::default()
        })
        .prop_filter("an empty operation is invalid", |operation| *operation != wire::Operation::default())
}

fn a_condition() -> impl Strategy<Value = wire::Condition> {
    let key = select(&["request.headers[x-tier]", "source.namespace"][..]).prop_map(str::to_owned);
    let values = &["gold", "shop", "bank", "*"];
    (key, some_of(values), some_of(values))
        .prop_map(|(key, values, not_values)| wire::Condition {
            key,
            values,
            not_values,
            ..Default::default()
        })
        .prop_filter("it needs values", |condition| {
            !condition.values.is_empty() || !condition.not_values.is_empty()
        })
}

fn a_rule() -> impl Strategy<Value = wire::Rule> {
    (vec(a_source(), 0..3), vec(an_operation(), 0..3), vec(a_condition(), 0..2))
        .prop_map(|(from, to, when)| wire::Rule { from, to, when, ..Default::default() })
}

fn a_policy() -> impl Strategy<Value = wire::Policy> {
    prop_oneof![vec(a_rule(), 0..3).prop_map(allow), vec(a_rule(), 1..3).prop_map(deny),]
}

fn some_facts() -> impl Strategy<Value = Facts> {
    let peers = &[
        None,
        Some("spiffe://cluster.local/ns/shop/sa/web"),
        Some("spiffe://cluster.local/ns/bank/sa/teller"),
    ];
    let requests = (
        select(&["GET", "DELETE", "POST"][..]),
        select(&["/a", "/a/b", "/admin", "/x.css"][..]),
        prop::option::of(select(&["gold", "shop"][..])),
    );
    let ports = select(&["10.77.0.9:8080", "10.77.0.9:7000"][..]);
    (select(&peers[..]), ports, prop::option::of(requests)).prop_map(|(peer, destination, http)| {
        let mut facts = match http {
            None => stream(),
            Some((method, path, tier)) => {
                let mut facts = request(method, path);
                if let Some(tier) = tier {
                    let headers = &mut facts.request.as_mut().unwrap().headers;
                    headers.append("x-tier", HeaderValue::from_static(tier));
                }
                facts
            }
        };
        facts.peer = peer.map(id);
        facts.destination = destination.parse().unwrap();
        facts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_decision_is_the_oracles(policies in vec(a_policy(), 0..4), facts in some_facts()) {
        let compiled = valid(policies.clone());
        prop_assert!(compiled.complaints().is_empty());
        prop_assert_eq!(passes(&compiled, &facts), oracle(&policies, &facts));
    }

    #[test]
    fn the_order_of_policies_and_rules_is_irrelevant(policies in vec(a_policy(), 0..4), facts in some_facts()) {
        let mut turned = policies.clone();
        turned.reverse();
        turned.iter_mut().for_each(|policy| policy.rules.reverse());
        prop_assert_eq!(passes(&valid(policies), &facts), passes(&valid(turned), &facts));
    }

    #[test]
    fn a_port_that_needs_http_passes_no_opaque_stream(policies in vec(a_policy(), 0..4), facts in some_facts()) {
        let compiled = valid(policies);
        if compiled.needs_http(facts.destination.port()) {
            let opaque = Facts { request: None, ..facts };
            prop_assert!(!passes(&compiled, &opaque));
        }
    }

    #[test]
    fn each_denial_names_its_policy_and_a_reason(policies in vec(a_policy(), 0..4), facts in some_facts()) {
        if let Decision::Deny(denial) = decide(&valid(policies), &facts, &Answers::default()) {
            let policy = denial.policy.expect("a policy denied it");
            prop_assert!(denial.reason.starts_with(&format!("policy {policy}")), "{}", denial.reason);
        }
    }

    #[test]
    fn no_texts_panic(texts in prop::array::uniform10(any::<String>()), action in 0..3, facts in some_facts()) {
        let [a, b, c, d, e, f, g, h, i, j] = texts;
        let rule = wire::Rule {
            from: vec![wire::Source { principals: vec![a, b], ip_blocks: vec![c], ..Default::default() }],
            to: vec![wire::Operation { paths: vec![d], hosts: vec![e], ports: vec![f], ..Default::default() }],
            when: vec![wire::Condition { key: g, values: vec![h], not_values: vec![i], ..Default::default() }],
            ..Default::default()
        };
        let policy = wire::Policy { action, namespace: j, ..allow(vec![rule]) };
        let _ = decide(&received(vec![policy]), &facts, &Answers::default());
    }
}
