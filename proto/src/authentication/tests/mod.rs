//! Requests with tokens, honest and not. Named after the sentences of Istio's semantics.

mod answers;
mod bounds;
mod forwarding;
mod places;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::*;
use crate::{
    facts::RequestFacts,
    jwt::minted::Issuer,
    target::{PathNormalization, Target},
    wire,
};

const NOW: u64 = 1_800_000_000;

/// A rule for tokens of the issuer `lab`, whose key it is.
fn rule(key: &Issuer) -> wire::JwtRule {
    rule_of("lab", key)
}

fn rule_of(issuer: &str, key: &Issuer) -> wire::JwtRule {
    wire::JwtRule { issuer: issuer.to_owned(), jwks: key.key_set_text(), ..wire::JwtRule::default() }
}

fn header(name: &str, prefix: &str) -> wire::TokenHeader {
    wire::TokenHeader { name: name.to_owned(), prefix: prefix.to_owned() }
}

fn message(rules: Vec<wire::JwtRule>) -> wire::RequestAuthentication {
    wire::RequestAuthentication {
        namespace: "shop".to_owned(),
        name: "tokens".to_owned(),
        rules,
        ..wire::RequestAuthentication::default()
    }
}

fn compile(rules: Vec<wire::JwtRule>) -> Authentication {
    let compiled = Authentication::from_wire(&[message(rules)]);
    assert!(compiled.complaints().is_empty(), "{:?}", compiled.complaints());
    compiled
}

fn good() -> Value {
    json!({"iss": "lab", "sub": "ann", "exp": NOW + 600})
}

fn claims(change: &Value) -> Value {
    let mut claims = good();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn request(path: &str, headers: &[(&str, &str)]) -> RequestFacts {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    RequestFacts {
        method: Method::GET,
        target: Target::parse("shop", path, PathNormalization::Base).unwrap(),
        headers: headers.iter().map(pair).collect::<HeaderMap>(),
        token: None,
    }
}

fn bearer(token: &str) -> RequestFacts {
    request("/", &[("authorization", &format!("Bearer {token}"))])
}

fn subject(request: &RequestFacts) -> Option<&str> {
    request.token.as_ref()?.claims.subject()
}

/// Is the request refused with 401?
fn is_invalid(authentication: &Authentication, mut request: RequestFacts) -> bool {
    let answer = authentication.authenticate(&mut request, NOW);
    assert_eq!(request.token, None);
    matches!(answer, Err(TokenRefused::Invalid { .. }))
}

/// Whom the request is accepted as.
fn accepted(authentication: &Authentication, mut request: RequestFacts) -> Option<String> {
    authentication.authenticate(&mut request, NOW).unwrap();
    subject(&request).map(str::to_owned)
}
