//! Where tokens are looked for.

use super::*;

fn user(rule: wire::JwtRule, path: &str, headers: &[(&str, &str)]) -> Option<String> {
    accepted(&compile(vec![rule]), request(path, headers))
}

#[test]
fn the_default_places_are_bearer_and_access_token() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {token}");
        assert!(user(rule(&lab), "/", &[("authorization", &value)]).is_some(), "{scheme}");
    }
    assert!(user(rule(&lab), "/", &[("authorization", &format!("Bearer   {token}"))]).is_some());
    assert!(user(rule(&lab), &format!("/?a=b&access_token={token}&c"), &[]).is_some());
    for (name, value) in [("authorization", token.as_str()), ("x-jwt", &token), ("cookie", &token)] {
        assert_eq!(user(rule(&lab), "/", &[(name, value)]), None, "{name}");
    }
}

#[test]
fn a_rule_that_names_places_looks_nowhere_else() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let named = [
        wire::JwtRule { from_headers: vec![header("x-jwt", "")], ..rule(&lab) },
        wire::JwtRule { from_params: vec!["jwt".to_owned()], ..rule(&lab) },
        wire::JwtRule { from_cookies: vec!["jwt".to_owned()], ..rule(&lab) },
    ];
    for rule in named {
        let authorization = [("authorization", "Bearer bad")];
        assert_eq!(user(rule.clone(), "/?access_token=bad", &authorization), None);
        let everywhere = [("x-jwt", token.as_str()), ("cookie", &format!("jwt={token}"))];
        assert!(user(rule, &format!("/?jwt={token}"), &everywhere).is_some());
    }
}

#[test]
fn a_prefix_is_matched_exactly() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let prefixed = wire::JwtRule { from_headers: vec![header("X-Jwt", "Token ")], ..rule(&lab) };
    assert!(user(prefixed.clone(), "/", &[("x-jwt", &format!("Token {token}"))]).is_some());
    for value in [token.clone(), format!("token {token}"), format!("Bearer {token}")] {
        assert_eq!(user(prefixed.clone(), "/", &[("x-jwt", &value)]), None, "{value}");
    }
}

#[test]
fn a_rule_accepts_tokens_of_its_own_places_only() {
    let (lab, bank) = (Issuer::new("a"), Issuer::new("b"));
    let of_lab = wire::JwtRule { from_headers: vec![header("x-lab", "")], ..rule(&lab) };
    let of_bank = wire::JwtRule { from_headers: vec![header("x-bank", "")], ..rule_of("bank", &bank) };
    let authentication = compile(vec![of_lab, of_bank]);
    let token = lab.sign(&good());
    assert!(accepted(&authentication, request("/", &[("x-lab", &token)])).is_some());
    assert!(is_invalid(&authentication, request("/", &[("x-bank", &token)])));
}

#[test]
fn one_place_that_two_rules_write_differently_is_one_place() {
    let (lab, bank) = (Issuer::new("a"), Issuer::new("b"));
    let written =
        wire::JwtRule { from_headers: vec![header("Authorization", "Bearer ")], ..rule_of("bank", &bank) };
    let authentication = compile(vec![rule(&lab), written]);
    let of_bank = bank.sign(&json!({"iss": "bank", "sub": "bob"}));
    assert_eq!(accepted(&authentication, bearer(&lab.sign(&good()))).as_deref(), Some("ann"));
    assert_eq!(accepted(&authentication, bearer(&of_bank)).as_deref(), Some("bob"));
}

#[test]
fn a_cookie_is_found_among_others() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let from_cookie = wire::JwtRule { from_cookies: vec!["jwt".to_owned()], ..rule(&lab) };
    for line in [
        format!("jwt={token}"),
        format!("a=b; jwt={token}; c"),
        format!("a=b;jwt={token};c=d"),
        format!("jwt=\"{token}\""),
    ] {
        assert!(user(from_cookie.clone(), "/", &[("cookie", &line)]).is_some(), "{line}");
    }
    for line in [format!("xjwt={token}"), format!("jwtx={token}"), format!("JWT={token}")] {
        assert_eq!(user(from_cookie.clone(), "/", &[("cookie", &line)]), None, "{line}");
    }
}

#[test]
fn a_parameter_is_found_in_every_spelling() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let escaped = token.replace('.', "%2E").replace('e', "%65");
    for query in [
        format!("access_token={token}"),
        format!("access_token={escaped}"),
        format!("%61ccess%5Ftoken={token}"),
        format!("a&&access_token={token}&"),
    ] {
        assert!(user(rule(&lab), &format!("/?{query}"), &[]).is_some(), "{query}");
    }
    let bad = compile(vec![rule(&lab)]);
    for query in ["access_token=", "access_token", "access%5ftoken=x", "access_token=%zz", "access_token=a+b"]
    {
        assert!(is_invalid(&bad, request(&format!("/?{query}"), &[])), "{query}");
    }
    assert_eq!(user(rule(&lab), &format!("/?Access_Token={token}"), &[]), None);
}
