//! A decision that allows allocates nothing, however many rules there are and whatever they look at.

#![expect(clippy::unwrap_used, reason = "a test")]

use douane_proto::{
    facts::{Facts, RequestFacts, Token},
    id::TrustDomain,
    policy::{Answers, Decision, PolicySet, Trust, audited_by, decide},
    target::{PathNormalization, Target},
    wire,
};
use http::{HeaderMap, Method};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn condition(key: &str, value: &str) -> wire::Condition {
    wire::Condition { key: key.to_owned(), values: texts(&[value]), ..Default::default() }
}

/// Every attribute that there is.
fn rule(account: &str) -> wire::Rule {
    let source = wire::Source {
        principals: vec![format!("cluster.local/ns/shop/sa/{account}"), "*/sa/nobody".to_owned()],
        namespaces: texts(&["sh*p"]),
        trust_domains: texts(&["cluster*"]),
        request_principals: texts(&["login/*"]),
        ip_blocks: texts(&["10.0.0.0/8"]),
        remote_ip_blocks: texts(&["10.0.0.0/8"]),
        not_principals: texts(&["*/sa/intruder"]),
        ..Default::default()
    };
    let operation = wire::Operation {
        hosts: texts(&["ORDERS.shop:*"]),
        methods: texts(&["GET"]),
        paths: texts(&["/x", "/orders/{*}/{**}"]),
        not_paths: texts(&["/orders/secret*"]),
        ports: texts(&["8080"]),
        ..Default::default()
    };
    wire::Rule {
        from: vec![source],
        to: vec![operation],
        when: vec![
            condition("request.headers[x-tier]", "gold"),
            condition("request.headers[:path]", "/orders*"),
            condition("request.auth.claims[realm][roles]", "reader"),
            condition("request.auth.claims[scope]", "write"),
            condition("source.serviceAccount", "shop/web"),
        ],
        unreadable: vec![],
    }
}

fn policies(rules: usize) -> PolicySet {
    let policy = |number: usize, action: wire::Action, rules| wire::Policy {
        namespace: "shop".to_owned(),
        name: format!("policy-{number}"),
        action: action.into(),
        rules,
        ..Default::default()
    };
    let mut all: Vec<wire::Policy> = (0..rules)
        .map(|number| policy(number, wire::Action::Allow, vec![rule(&format!("other-{number}"))]))
        .collect();
    all.push(policy(rules, wire::Action::Allow, vec![rule("web")]));
    all.push(policy(rules + 1, wire::Action::Deny, vec![rule("intruder")]));
    all.push(policy(rules + 2, wire::Action::Audit, vec![rule("web")]));
    let local = TrustDomain::parse("cluster.local").unwrap();
    let trust = Trust { local: &local, aliases: &[] };
    PolicySet::from_wire(wire::PolicySet { policies: all, ..Default::default() }, trust).unwrap()
}

fn facts() -> Facts {
    let claims = serde_json::json!({
        "iss": "login", "sub": "alice", "scope": "read write", "realm": {"roles": ["writer", "reader"]},
    });
    let serde_json::Value::Object(claims) = claims else { panic!("claims are a map") };
    let mut headers = HeaderMap::new();
    headers.insert("x-tier", "gold".parse().unwrap());
    Facts {
        peer: Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()),
        source: "10.77.0.5".parse().unwrap(),
        remote: "10.77.0.5".parse().unwrap(),
        destination: "10.77.0.9:8080".parse().unwrap(),
        sni: Some("orders.shop".to_owned()),
        request: Some(RequestFacts {
            method: Method::GET,
            target: Target::parse("orders.shop:8080", "/orders/7/items?x=1", PathNormalization::Base)
                .unwrap(),
            headers,
            token: Some(Token { claims: claims.into(), spaced: [].into() }),
        }),
    }
}

#[test]
fn an_allowed_request_costs_no_allocation() {
    let (facts, answers) = (facts(), Answers::default());
    for rules in [0, 100, 2_000] {
        let policies = policies(rules);

        let allocated = allocation_counter::measure(|| {
            assert!(matches!(decide(&policies, &facts, &answers), Decision::Allow(_)));
            assert!(audited_by(&policies, &facts).is_some());
        });

        assert_eq!(allocated.count_total, 0, "with {rules} rules: {allocated:?}");
    }
}

#[test]
fn to_explain_a_denial_costs_no_more_with_many_rules() {
    let mut stranger = facts();
    stranger.peer = Some("spiffe://cluster.local/ns/shop/sa/stranger".parse().unwrap());
    let allocations = |rules| {
        let policies = policies(rules);
        let denied =
            || assert!(matches!(decide(&policies, &stranger, &Answers::default()), Decision::Deny(_)));
        allocation_counter::measure(denied).count_total
    };
    assert!(allocations(500) > 0, "they are counted");
    assert!(allocations(2_000) <= allocations(500) + 4);
    assert!(allocations(2_000) < 50, "{}", allocations(2_000));
}
