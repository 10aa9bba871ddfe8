//! `RequestAuthentication` in YAML.

use std::time::Duration;

use super::*;
use crate::wire;

fn text(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens, namespace: shop}}\nspec:\n{spec}"
    )
}

fn tokens(text: &str) -> RequestAuthentication {
    match reading(text).resource.map(|resource| resource.kind) {
        Some(Kind::RequestAuthentication(tokens)) => tokens,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_of_a_token_rule_arrives_at_its_place() {
    let text = text(
        "  selector: {matchLabels: {app: orders}}
  jwtRules:
    - issuer: https://issuer.example
      audiences: [a, b]
      jwksUri: https://issuer.example/keys
      fromHeaders: [{name: X-Token, prefix: 'Token '}, {name: y}]
      fromParams: [t]
      fromCookies: [c]
      forwardOriginalToken: true
      outputPayloadToHeader: x-payload
      outputClaimToHeaders: [{header: x-sub, claim: sub}]
      spaceDelimitedClaims: [roles]
      timeout: 1m2.5s
    - {issuer: i, jwks: '{\"keys\":[]}'}
    - {issuer: 'https://other.example/'}
",
    );
    assert_eq!(read(&text).unwrap_or_else(|errors| panic!("{errors:?}")).len(), 1);
    let law = tokens(&text);
    let strings = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();

    assert_eq!(law.attachment.scope.selector["app"], "orders");
    assert_eq!(
        law.rules[0].rule,
        wire::JwtRule {
            issuer: "https://issuer.example".to_owned(),
            audiences: strings(&["a", "b"]),
            jwks: String::new(),
            from_headers: vec![
                wire::TokenHeader { name: "X-Token".to_owned(), prefix: "Token ".to_owned() },
                wire::TokenHeader { name: "y".to_owned(), prefix: String::new() },
            ],
            from_params: strings(&["t"]),
            from_cookies: strings(&["c"]),
            forward_original_token: true,
            output_payload_to_header: "x-payload".to_owned(),
            output_claim_to_headers: vec![wire::ClaimHeader {
                header: "x-sub".to_owned(),
                claim: "sub".to_owned()
            }],
            space_delimited_claims: strings(&["roles"]),
        }
    );
    assert_eq!(law.rules[0].keys, KeySource::Set("https://issuer.example/keys".to_owned()));
    assert_eq!(law.rules[0].timeout, Some(Duration::from_secs(60)), "no fetch waits longer");
    assert_eq!((law.rules[1].keys.clone(), law.rules[1].line), (KeySource::Inline, 18));
    assert_eq!(law.rules[1].rule.jwks, "{\"keys\":[]}");
    let configuration = "https://other.example/.well-known/openid-configuration".to_owned();
    assert_eq!(law.rules[2].keys, KeySource::Configuration(configuration));
}

#[test]
fn what_no_request_authentication_says_is_refused_and_then_any_token_is() {
    for (rule, unreadable) in [
        ("{issuer: i, jwks: '{\"keys\":[]}', jwksUri: https://a}", "jwksUri"),
        ("{issuer: i, jwks: nonsense}", "jwks"),
        ("{issuer: i}", "jwksUri"),
        ("{issuer: i, jwksUri: 'ftp://a/b'}", "jwksUri"),
        ("{issuer: i, jwksUri: 'https://user@a/b'}", "jwksUri"),
        ("{issuer: i, jwksUri: /etc/passwd}", "jwksUri"),
        ("{issuer: i, jwksUri: https://a, audiences: ['']}", "audiences"),
        ("{issuer: i, jwksUri: https://a, fromParams: ['']}", "fromParams"),
        ("{issuer: i, jwksUri: https://a, fromCookies: [5]}", "fromCookies"),
        ("{issuer: i, jwksUri: https://a, fromHeaders: [{prefix: x}]}", "fromHeaders"),
        ("{issuer: i, jwksUri: https://a, fromHeaders: [{name: 'a b'}]}", "fromHeaders"),
        ("{issuer: i, jwksUri: https://a, outputPayloadToHeader: 'a:b'}", "outputPayloadToHeader"),
        ("{issuer: i, jwksUri: https://a, outputPayloadToHeader: Host}", "outputPayloadToHeader"),
        (
            "{issuer: i, jwksUri: https://a, outputClaimToHeaders: [{header: x-douane-peer, claim: sub}]}",
            "outputClaimToHeaders",
        ),
        (
            "{issuer: i, jwksUri: https://a, outputClaimToHeaders: [{header: x!, claim: sub}]}",
            "outputClaimToHeaders",
        ),
        ("{issuer: i, jwksUri: https://a, outputClaimToHeaders: [{header: x}]}", "outputClaimToHeaders"),
        ("{issuer: i, jwksUri: https://a, timeout: soon}", "timeout"),
        ("{issuer: i, jwksUri: https://a, timeout: 0s}", "timeout"),
        ("{issuer: i, jwksUri: https://a, forwardOriginalToken: 'yes'}", "forwardOriginalToken"),
        ("{isuer: i, jwksUri: https://a}", "isuer"),
    ] {
        let text = text(&format!("  jwtRules:\n    - {rule}\n"));
        let error = only_error(&text);
        assert_eq!(error.location.line, 6, "{error}");
        assert_eq!(error.doubt.map(|doubt| doubt.law), Some(DoubtedLaw::Requests));
        assert_eq!(tokens(&text).unreadable, [format!("spec.jwtRules[0].{unreadable}")], "{rule}");
    }
}
