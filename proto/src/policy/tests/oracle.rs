//! Random laws and facts against a naive oracle, written from the text of the semantics and not from the code.

use proptest::{collection::vec, prelude::*, sample::select};

use serde_json::{Value, json};

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
    let token = http.and_then(|request| request.token.as_ref());
    let claim = |name: &str| token.and_then(|token| token.claims.get(name));
    let issuer = claim("iss").and_then(Value::as_str);
    let subject = claim("sub").and_then(Value::as_str);
    let user = issuer.zip(subject).map(|(issuer, subject)| format!("{issuer}/{subject}"));
    let domain = facts.peer.as_ref().map(|peer| peer.trust_domain().to_string());
    let remote = facts.remote.to_string();
    let uses_token = |source: &wire::Source| {
        !source.request_principals.is_empty() || !source.not_request_principals.is_empty()
    };
    let is_http = |condition: &wire::Condition| condition.key.starts_with("request.");
    let rule_uses_http =
        rule.to.iter().any(uses_http) || rule.when.iter().any(is_http) || rule.from.iter().any(uses_token);
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
                && http_field(&user, &source.request_principals, &source.not_request_principals)
                && oracle_field(domain.as_deref(), &source.trust_domains, &source.not_trust_domains)
                && oracle_range(&remote, &source.remote_ip_blocks, &source.not_remote_ip_blocks)
        });
    let to = rule.to.is_empty()
        || rule.to.iter().any(|operation| {
            oracle_field(port.as_deref(), &operation.ports, &operation.not_ports)
                && http_field(&method, &operation.methods, &operation.not_methods)
                && http_field(&path, &operation.paths, &operation.not_paths)
        });
    let when = rule.when.iter().all(|condition| {
        let (values, not_values) = (&condition.values, &condition.not_values);
        match condition.key.as_str() {
            "request.headers[x-tier]" => http_field(&header, values, not_values),
            "request.auth.claims[groups]" if http.is_none() => true,
            "request.auth.claims[groups]" => {
                let groups = claim("groups").and_then(Value::as_array).cloned().unwrap_or_default();
                let groups: Vec<&str> = groups.iter().filter_map(Value::as_str).collect();
                let one = |value: &String| {
                    groups.iter().any(|group| oracle_field(Some(*group), std::slice::from_ref(value), &[]))
                };
                (values.is_empty() || values.iter().any(one)) && !not_values.iter().any(one)
            }
            _ => oracle_field(namespace.as_deref(), values, not_values),
        }
    });
    from && to && when
}

/// Ranges that end at a dot are as good as prefixes.
fn oracle_range(address: &str, blocks: &[String], not_blocks: &[String]) -> bool {
    let matches = |block: &String| address.starts_with(block.split("0.0/16").next().unwrap());
    (blocks.is_empty() || blocks.iter().any(matches)) && !not_blocks.iter().any(matches)
}

fn oracle(policies: &[wire::Policy], facts: &Facts, answer: &Answer) -> bool {
    let enforced =
        |policy: &&wire::Policy| !policy.dry_run || policy.action == i32::from(wire::Action::Custom);
    let of = |action: wire::Action| {
        policies.iter().filter(enforced).filter(move |policy| policy.action == i32::from(action))
    };
    let matches =
        |policy: &wire::Policy, is_deny| policy.rules.iter().any(|rule| oracle_rule(rule, facts, is_deny));
    if of(wire::Action::Custom).any(|policy| matches(policy, true)) && *answer != Answer::Allow {
        return false;
    }
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

fn rarely(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        6 => Just(vec![]),
        1 => vec(select(values).prop_map(str::to_owned), 1..3),
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
    let users = &["login/alice", "login/*", "*/bob", "*"];
    let blocks = &["10.77.0.0/16", "10.78.0.0/16"];
    let domains = &["cluster.local", "other*", "*"];
    let workloads = (some_of(principals), some_of(principals), some_of(namespaces), some_of(namespaces));
    let rest =
        (rarely(users), rarely(users), rarely(blocks), rarely(blocks), rarely(domains), rarely(domains));
    (workloads, rest)
        .prop_map(|(workloads, rest)| {
            let (principals, not_principals, namespaces, not_namespaces) = workloads;
            let (users, not_users, blocks, not_blocks, domains, not_domains) = rest;
            wire::Source {
                principals,
                not_principals,
                namespaces,
                not_namespaces,
                request_principals: users,
                not_request_principals: not_users,
                remote_ip_blocks: blocks,
                not_remote_ip_blocks: not_blocks,
                trust_domains: domains,
                not_trust_domains: not_domains,
                ..Default::default()
            }
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
    let keys = &["request.headers[x-tier]", "source.namespace", "request.auth.claims[groups]"];
    let key = select(&keys[..]).prop_map(str::to_owned);
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
    let custom =
        |rules| wire::Policy { provider: "ext".to_owned(), ..written(wire::Action::Custom, "custom", rules) };
    let audit = |rules| written(wire::Action::Audit, "audit", rules);
    let policies = prop_oneof![
        4 => vec(a_rule(), 0..3).prop_map(allow),
        4 => vec(a_rule(), 1..3).prop_map(deny),
        1 => vec(a_rule(), 1..3).prop_map(audit),
        1 => vec(a_rule().prop_map(without_identities), 1..3).prop_map(custom),
    ];
    (policies, prop::bool::weighted(0.1)).prop_map(|(policy, dry_run)| wire::Policy { dry_run, ..policy })
}

/// As a CUSTOM policy may be.
fn without_identities(rule: wire::Rule) -> wire::Rule {
    let when = rule.when.into_iter().filter(|condition| condition.key != "source.namespace").collect();
    wire::Rule { from: vec![], when, ..rule }
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
    let remotes = select(&["10.77.0.5", "10.78.0.5", "192.0.2.1"][..]);
    let tokens = prop_oneof![
        Just(None),
        (
            select(&["login", "other"][..]),
            select(&["alice", "bob"][..]),
            vec(select(&["gold", "shop"][..]), 0..2)
        )
            .prop_map(|(issuer, subject, groups)| {
                Some(token(json!({"iss": issuer, "sub": subject, "groups": groups})))
            }),
    ];
    (select(&peers[..]), ports, remotes, tokens, prop::option::of(requests)).prop_map(
        |(peer, destination, remote, token, http)| {
            let mut facts = match http {
                None => stream(),
                Some((method, path, tier)) => {
                    let mut facts = request(method, path);
                    let request = facts.request.as_mut().unwrap();
                    request.token = token;
                    if let Some(tier) = tier {
                        request.headers.append("x-tier", HeaderValue::from_static(tier));
                    }
                    facts
                }
            };
            facts.peer = peer.map(id);
            facts.destination = destination.parse().unwrap();
            facts.remote = remote.parse().unwrap();
            facts
        },
    )
}

fn an_answer() -> impl Strategy<Value = Answer> {
    select(vec![Answer::Allow, Answer::Deny, Answer::Failed("no answer".to_owned())])
}

fn with_authorizer(policies: Vec<wire::Policy>) -> PolicySet {
    let providers = vec![Provider::new("ext", ProviderProtocol::Grpc, "ext", 9000).to_wire()];
    PolicySet::from_wire(wire::PolicySet { policies, providers, ..Default::default() }, trust(&local()))
        .unwrap()
}

fn settled(policies: &PolicySet, facts: &Facts, answer: &Answer) -> bool {
    matches!(decide(policies, facts, &Answers::default().with("ext", answer.clone())), Decision::Allow(_))
}

fn first_of_all<'a>(book: &'a book::Book, facts: &Facts) -> Option<&'a str> {
    book.rules.iter().find(|rule| rule.matches(facts, book.effect)).map(|rule| &*rule.label)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_decision_is_the_oracles(
        policies in vec(a_policy(), 0..4),
        facts in some_facts(),
        answer in an_answer(),
    ) {
        prop_assert!(policies.iter().all(|policy| Policy::from_wire(policy.clone()).is_ok()));
        let compiled = with_authorizer(policies.clone());
        prop_assert_eq!(settled(&compiled, &facts, &answer), oracle(&policies, &facts, &answer));
    }

    #[test]
    fn the_order_of_policies_and_rules_is_irrelevant(
        policies in vec(a_policy(), 0..4),
        facts in some_facts(),
        answer in an_answer(),
    ) {
        let mut turned = policies.clone();
        turned.reverse();
        turned.iter_mut().for_each(|policy| policy.rules.reverse());
        let (one, other) = (with_authorizer(policies), with_authorizer(turned));
        prop_assert_eq!(settled(&one, &facts, &answer), settled(&other, &facts, &answer));
    }

    #[test]
    fn one_more_deny_policy_never_allows_more(
        policies in vec(a_policy(), 0..4),
        more in vec(a_rule(), 1..3).prop_map(deny),
        facts in some_facts(),
        answer in an_answer(),
    ) {
        let with_more = policies.iter().cloned().chain([more]).collect();
        if !settled(&with_authorizer(policies), &facts, &answer) {
            prop_assert!(!settled(&with_authorizer(with_more), &facts, &answer));
        }
    }

    #[test]
    fn one_more_allow_rule_never_denies_more_where_an_allow_policy_is(
        mut policies in vec(a_policy(), 0..4),
        more in a_rule(),
        facts in some_facts(),
        answer in an_answer(),
    ) {
        policies.push(allow(vec![]));
        let mut with_more = policies.clone();
        with_more.last_mut().unwrap().rules.push(more);
        if settled(&with_authorizer(policies), &facts, &answer) {
            prop_assert!(settled(&with_authorizer(with_more), &facts, &answer));
        }
    }

    #[test]
    fn a_dry_run_and_an_audit_change_no_verdict(
        policies in vec(a_policy(), 0..4),
        more in vec(a_rule(), 1..3),
        facts in some_facts(),
        answer in an_answer(),
    ) {
        let plain = settled(&with_authorizer(policies.clone()), &facts, &answer);
        for policy in [
            wire::Policy { dry_run: true, ..allow(more.clone()) },
            wire::Policy { dry_run: true, ..deny(more.clone()) },
            written(wire::Action::Audit, "audit", more),
        ] {
            let with_more = policies.iter().cloned().chain([policy]).collect();
            prop_assert_eq!(settled(&with_authorizer(with_more), &facts, &answer), plain);
        }
    }

    #[test]
    fn the_index_finds_the_first_rule_that_a_look_at_all_of_them_finds(
        policies in vec(a_policy(), 0..6),
        facts in some_facts(),
    ) {
        let set = with_authorizer(policies);
        let custom = set.custom.values().map(|custom| &custom.book);
        for book in [&set.deny, &set.allow, &set.audit, &set.dry_deny, &set.dry_allow].into_iter().chain(custom) {
            prop_assert_eq!(book.first(&facts).map(|rule| &*rule.label), first_of_all(book, &facts));
        }
    }

    #[test]
    fn a_port_that_needs_http_passes_no_opaque_stream(policies in vec(a_policy(), 0..4), facts in some_facts()) {
        let compiled = with_authorizer(policies);
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
    fn no_texts_panic(texts in prop::array::uniform10(any::<String>()), action in 0..5, facts in some_facts()) {
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
