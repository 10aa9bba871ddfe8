//! Istio's semantics, case by case, through the door: a policy as written, facts, and what is decided.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::{
    facts::{Facts, RequestFacts, Token},
    id::{TrustDomain, WorkloadId},
    target::{PathNormalization, Target},
    wire,
};

mod crowd;
mod domains;
mod examined;
mod fields;
mod law;
mod oracle;
mod order;
mod reasons;
mod received;
mod tokens;

fn local() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn trust(local: &TrustDomain) -> Trust<'_> {
    Trust { local, aliases: &[] }
}

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

/// An opaque stream from `web` of namespace `shop`.
fn stream() -> Facts {
    Facts {
        peer: Some(id("spiffe://cluster.local/ns/shop/sa/web")),
        source: "10.77.0.5".parse().unwrap(),
        remote: "10.77.0.5".parse().unwrap(),
        destination: "10.77.0.9:8080".parse().unwrap(),
        sni: None,
        request: None,
    }
}

/// A request from `web` of namespace `shop`.
fn request(method: &str, path: &str) -> Facts {
    let request = RequestFacts {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        target: Target::parse("orders.shop:8080", path, PathNormalization::Base).unwrap(),
        headers: HeaderMap::new(),
        token: None,
    };
    Facts { request: Some(request), ..stream() }
}

fn token(claims: serde_json::Value) -> Token {
    let serde_json::Value::Object(claims) = claims else { panic!("claims are a map") };
    Token { claims: claims.into(), spaced: Arc::default() }
}

/// A request with a token that verified.
fn by_user(claims: serde_json::Value) -> Facts {
    let mut facts = request("GET", "/");
    facts.request.as_mut().unwrap().token = Some(token(claims));
    facts
}

fn with_headers(headers: &[(&str, &str)]) -> Facts {
    let mut facts = request("GET", "/");
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        facts.request.as_mut().unwrap().headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    facts
}

fn from(source: wire::Source) -> wire::Rule {
    wire::Rule { from: vec![source], ..wire::Rule::default() }
}

fn to(operation: wire::Operation) -> wire::Rule {
    wire::Rule { to: vec![operation], ..wire::Rule::default() }
}

fn when(key: &str, values: &[&str], not_values: &[&str]) -> wire::Rule {
    let condition = wire::Condition {
        key: key.to_owned(),
        values: list(values),
        not_values: list(not_values),
        ..Default::default()
    };
    wire::Rule { when: vec![condition], ..wire::Rule::default() }
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn written(action: wire::Action, name: &str, rules: Vec<wire::Rule>) -> wire::Policy {
    wire::Policy {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        action: action.into(),
        rules,
        ..wire::Policy::default()
    }
}

fn allow(rules: Vec<wire::Rule>) -> wire::Policy {
    written(wire::Action::Allow, "allow", rules)
}

fn deny(rules: Vec<wire::Rule>) -> wire::Policy {
    written(wire::Action::Deny, "deny", rules)
}

fn received(policies: Vec<wire::Policy>) -> PolicySet {
    PolicySet::from_wire(wire::PolicySet { policies, ..Default::default() }, trust(&local())).unwrap()
}

fn valid(policies: Vec<wire::Policy>) -> PolicySet {
    let policies: Vec<Policy> =
        policies.into_iter().map(|policy| Policy::from_wire(policy).unwrap()).collect();
    PolicySet::compile(&policies, trust(&local()))
}

fn passes(policies: &PolicySet, facts: &Facts) -> bool {
    matches!(decide(policies, facts, &Answers::default()), Decision::Allow(_))
}

fn reason(policies: &PolicySet, facts: &Facts) -> String {
    match decide(policies, facts, &Answers::default()) {
        Decision::Deny(denial) => denial.reason,
        Decision::Allow(permit) => panic!("allowed by {:?}", permit.by),
        Decision::Ask(providers) => panic!("asks {providers:?}"),
    }
}

/// Does an ALLOW policy of this one rule let it pass?
fn allows(rule: wire::Rule, facts: &Facts) -> bool {
    passes(&valid(vec![allow(vec![rule])]), facts)
}

/// Does a DENY policy of this one rule stop it?
fn denies(rule: wire::Rule, facts: &Facts) -> bool {
    !passes(&valid(vec![deny(vec![rule])]), facts)
}
