//! Which tokens are accepted, and what the others are answered.

use jsonwebtoken::{Algorithm, Header};

use super::*;
use crate::jwt::minted;

#[test]
fn no_token_passes_without_a_principal() {
    let lab = Issuer::new("a");
    let authentication = compile(vec![rule(&lab)]);
    for headers in [&[][..], &[("authorization", "Basic YTpi")], &[("authorization", "Bearer")]] {
        assert_eq!(accepted(&authentication, request("/?x=access_token", headers)), None, "{headers:?}");
    }
}

#[test]
fn without_rules_no_token_is_looked_at() {
    assert_eq!(accepted(&Authentication::default(), bearer("x")), None);
    assert_eq!(accepted(&compile(vec![]), bearer("x")), None);
}

#[test]
fn a_valid_token_is_the_requests_user() {
    let lab = Issuer::new("a");
    let words = wire::JwtRule { space_delimited_claims: vec!["roles".to_owned()], ..rule(&lab) };
    let mut request = bearer(&lab.sign(&good()));
    compile(vec![words]).authenticate(&mut request, NOW).unwrap();
    let token = request.token.unwrap();
    assert_eq!((token.claims.issuer(), token.claims.subject()), (Some("lab"), Some("ann")));
    assert_eq!(*token.spaced, ["roles".to_owned()]);
}

#[test]
fn every_kind_of_bad_token_is_401() {
    let (lab, thief) = (Issuer::new("a"), Issuer::new("a"));
    let authentication = compile(vec![rule(&lab)]);
    let symmetric = jsonwebtoken::encode(
        &Header { kid: Some("a".to_owned()), ..Header::new(Algorithm::HS256) },
        &good(),
        &jsonwebtoken::EncodingKey::from_secret(lab.key_set_text().as_bytes()),
    );
    for token in [
        thief.sign(&good()),
        lab.sign_as("b", &good()),
        lab.sign(&claims(&json!({"exp": NOW - 61}))),
        lab.sign(&claims(&json!({"nbf": NOW + 61}))),
        lab.sign(&claims(&json!({"iss": "other"}))),
        lab.sign(&claims(&json!({"iss": null}))),
        "eyJhbGciOiJub25lIn0.eyJpc3MiOiJsYWIiLCJzdWIiOiJhbm4ifQ.".to_owned(),
        symmetric.unwrap(),
        "malformed".to_owned(),
        "a.b.c".to_owned(),
        format!("{} x", lab.sign(&good())),
    ] {
        assert!(is_invalid(&authentication, bearer(&token)), "{token}");
    }
}

#[test]
fn an_unknown_issuer_is_401_and_not_a_missing_token() {
    let (lab, other) = (Issuer::new("a"), Issuer::new("b"));
    let authentication = compile(vec![rule(&lab)]);
    assert!(is_invalid(&authentication, bearer(&other.sign(&claims(&json!({"iss": "other"}))))));
}

#[test]
fn an_empty_issuer_is_any() {
    let lab = Issuer::new("a");
    let authentication = compile(vec![rule_of("", &lab)]);
    let token = lab.sign(&claims(&json!({"iss": "whoever"})));
    assert_eq!(accepted(&authentication, bearer(&token)).as_deref(), Some("ann"));
}

#[test]
fn a_token_without_exp_is_accepted() {
    let lab = Issuer::new("a");
    let token = lab.sign(&json!({"iss": "lab", "sub": "ann"}));
    assert_eq!(accepted(&compile(vec![rule(&lab)]), bearer(&token)).as_deref(), Some("ann"));
}

#[test]
fn an_audience_mismatch_is_403() {
    let lab = Issuer::new("a");
    let audiences = vec!["shop".to_owned(), "bank".to_owned()];
    let authentication = compile(vec![wire::JwtRule { audiences, ..rule(&lab) }]);
    let ask = |aud: Value| {
        let mut request = bearer(&lab.sign(&claims(&json!({"aud": aud}))));
        authentication.authenticate(&mut request, NOW)
    };
    let refused = Err(TokenRefused::Audience { place: "header authorization".to_owned() });
    assert_eq!(ask(json!("other")), refused);
    assert_eq!(ask(json!(["other", "sho"])), refused);
    assert_eq!(ask(json!(null)), refused);
    assert_eq!(ask(json!(["other", "bank"])), Ok(()));
    assert_eq!(ask(json!("shop")), Ok(()));
}

#[test]
fn an_audience_mismatch_is_403_only_where_nothing_else_is_wrong() {
    let (lab, thief) = (Issuer::new("a"), Issuer::new("a"));
    let strict = wire::JwtRule { audiences: vec!["shop".to_owned()], ..rule(&lab) };
    let other = rule_of("other", &Issuer::new("b"));
    // Another rule's refusal does not hide that this one would accept it but for the audience.
    for rules in [vec![strict.clone()], vec![strict.clone(), other.clone()], vec![other, strict]] {
        let authentication = compile(rules);
        let foreign = authentication.authenticate(&mut bearer(&lab.sign(&good())), NOW);
        assert!(matches!(foreign, Err(TokenRefused::Audience { .. })));
        assert!(is_invalid(&authentication, bearer(&thief.sign(&good()))));
        assert!(is_invalid(&authentication, bearer(&lab.sign(&claims(&json!({"exp": 1}))))));
    }
}

#[test]
fn all_policies_are_merged_and_each_rule_is_an_alternative() {
    let (lab, bank) = (Issuer::new("a"), Issuer::new("b"));
    let authentication =
        Authentication::from_wire(&[message(vec![rule(&lab)]), message(vec![rule_of("bank", &bank)])]);
    let of_bank = bank.sign(&json!({"iss": "bank", "sub": "bob"}));
    assert_eq!(accepted(&authentication, bearer(&lab.sign(&good()))).as_deref(), Some("ann"));
    assert_eq!(accepted(&authentication, bearer(&of_bank)).as_deref(), Some("bob"));
    // One issuer's key does not speak for the other.
    assert!(is_invalid(&authentication, bearer(&bank.sign(&good()))));
}

#[test]
fn of_several_rules_of_one_issuer_any_that_verifies_is_enough() {
    let (old, new) = (Issuer::new("a"), Issuer::new("a"));
    let strict = wire::JwtRule { audiences: vec!["nobody".to_owned()], ..rule(&old) };
    let authentication = compile(vec![strict, rule(&old), rule(&new)]);
    for issuer in [&old, &new] {
        assert_eq!(accepted(&authentication, bearer(&issuer.sign(&good()))).as_deref(), Some("ann"));
    }
}

#[test]
fn one_bad_token_is_401_even_if_another_is_good() {
    let (lab, thief) = (Issuer::new("a"), Issuer::new("a"));
    let authentication = compile(vec![rule(&lab)]);
    let (good, bad) = (lab.sign(&good()), thief.sign(&good()));
    for (header, param) in [(&good, &bad), (&bad, &good)] {
        let request =
            request(&format!("/?access_token={param}"), &[("authorization", &format!("Bearer {header}"))]);
        assert!(is_invalid(&authentication, request));
    }
    let (first, second) = (format!("Bearer {good}"), format!("Bearer {bad}"));
    assert!(is_invalid(
        &authentication,
        request("/", &[("authorization", &first), ("authorization", &second)])
    ));
}

#[test]
fn the_user_is_the_one_of_the_first_rule_then_of_the_first_place() {
    let (lab, bank) = (Issuer::new("a"), Issuer::new("b"));
    let everywhere = |rule| wire::JwtRule {
        from_cookies: vec!["c".to_owned()],
        from_params: vec!["p".to_owned()],
        from_headers: vec![header("x-a", ""), header("x-b", "")],
        ..rule
    };
    let authentication = compile(vec![everywhere(rule_of("bank", &bank)), everywhere(rule(&lab))]);
    let of = |sub: &str| lab.sign(&claims(&json!({"sub": sub})));
    let of_bank = bank.sign(&json!({"iss": "bank", "sub": "bank"}));
    let ask = |a: &str, b: &str, p: &str, c: &str| {
        let mut headers = vec![];
        let cookie = format!("c={c}");
        for (name, value) in [("x-a", a), ("x-b", b), ("cookie", &cookie)] {
            if !value.is_empty() && value != "c=" {
                headers.push((name, value));
            }
        }
        let path = if p.is_empty() { "/".to_owned() } else { format!("/?p={p}") };
        accepted(&authentication, request(&path, &headers)).unwrap()
    };
    assert_eq!(ask(&of("a"), &of("b"), &of("p"), &of("c")), "a");
    assert_eq!(ask("", &of("b"), &of("p"), &of("c")), "b");
    assert_eq!(ask("", "", &of("p"), &of("c")), "p");
    assert_eq!(ask("", "", "", &of("c")), "c");
    assert_eq!(ask(&of("a"), &of("b"), &of("p"), &of_bank), "bank");
}

#[test]
fn keys_that_were_not_fetched_refuse_a_token_and_let_others_pass() {
    let (lab, bank) = (Issuer::new("a"), Issuer::new("b"));
    let unfetched = wire::JwtRule { jwks: String::new(), ..rule(&lab) };
    let alone = compile(vec![unfetched.clone()]);
    assert!(is_invalid(&alone, bearer(&lab.sign(&good()))));
    assert_eq!(accepted(&alone, request("/", &[])), None);

    let beside_another = compile(vec![unfetched, rule_of("bank", &bank)]);
    assert!(is_invalid(&beside_another, bearer(&lab.sign(&good()))));
    let of_bank = bank.sign(&json!({"iss": "bank", "sub": "bob"}));
    assert_eq!(accepted(&beside_another, bearer(&of_bank)).as_deref(), Some("bob"));
}

#[test]
fn keys_that_cannot_be_used_refuse_every_token_and_are_complained_about() {
    let lab = Issuer::new("a");
    for jwks in ["{}", "no json", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#] {
        let broken = wire::JwtRule { jwks: jwks.to_owned(), ..rule(&lab) };
        let authentication = Authentication::from_wire(&[message(vec![broken])]);
        let [complaint] = authentication.complaints() else { panic!("one complaint") };
        assert!(complaint.starts_with("request authentication shop/tokens rule 1: "), "{complaint}");
        assert!(is_invalid(&authentication, bearer(&lab.sign(&good()))));
        assert_eq!(accepted(&authentication, request("/", &[])), None);
    }
}

#[test]
fn what_could_not_be_read_refuses_tokens_that_no_other_policy_accepts() {
    let lab = Issuer::new("a");
    let from_header = wire::JwtRule { from_headers: vec![header("x-jwt", "")], ..rule(&lab) };
    let unreadable = wire::RequestAuthentication {
        unreadable: vec!["spec.jwtRules[1].wat: no such field".to_owned()],
        ..message(vec![from_header.clone()])
    };
    let alone = Authentication::from_wire(std::slice::from_ref(&unreadable));
    assert_eq!(alone.complaints().len(), 1);
    let token = lab.sign(&good());
    assert!(is_invalid(&alone, bearer(&token)));
    assert!(is_invalid(&alone, request("/", &[("x-jwt", &token)])));
    assert_eq!(accepted(&alone, request("/", &[])), None);

    let beside = Authentication::from_wire(&[unreadable, message(vec![from_header])]);
    assert_eq!(accepted(&beside, request("/", &[("x-jwt", &token)])).as_deref(), Some("ann"));
    assert!(is_invalid(&beside, bearer(&token)));
}

#[test]
fn rules_of_an_unknown_feature_refuse_every_token() {
    let lab = Issuer::new("a");
    let sound = wire::RequestAuthentication {
        requires: crate::features::ALL.iter().map(|feature| (*feature).to_owned()).collect(),
        ..message(vec![rule(&lab)])
    };
    let newer = wire::RequestAuthentication { requires: vec!["tokens/v9".to_owned()], ..sound.clone() };
    let token = lab.sign(&good());
    assert_eq!(accepted(&Authentication::from_wire(&[sound]), bearer(&token)).as_deref(), Some("ann"));

    let authentication = Authentication::from_wire(&[newer]);
    assert!(is_invalid(&authentication, bearer(&token)));
    assert!(authentication.complaints()[0].contains("tokens/v9"));
}

#[test]
fn a_cors_preflight_is_not_asked_for_its_tokens() {
    let lab = Issuer::new("a");
    let authentication = compile(vec![rule(&lab)]);
    let ask = |method, headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().copied().chain([("authorization", "Bearer bad")]).collect();
        let mut request = request("/", &headers);
        request.method = method;
        let answer = authentication.authenticate(&mut request, NOW);
        assert_eq!(request.token, None);
        answer.is_ok()
    };
    let (origin, wish) = (("origin", "https://a"), ("access-control-request-method", "PUT"));
    assert!(ask(Method::OPTIONS, &[origin, wish]));
    assert!(!ask(Method::GET, &[origin, wish]));
    assert!(!ask(Method::OPTIONS, &[origin]));
    assert!(!ask(Method::OPTIONS, &[wish]));
    assert!(!ask(Method::OPTIONS, &[("origin", ""), wish]));
}

#[test]
fn a_token_of_each_asymmetric_algorithm_is_accepted() {
    for algorithm in minted::ALGORITHMS {
        let lab = Issuer::of(algorithm, "a");
        let user = accepted(&compile(vec![rule(&lab)]), bearer(&lab.sign(&good())));
        assert_eq!(user.as_deref(), Some("ann"), "{algorithm:?}");
    }
}

#[test]
fn a_refusal_names_the_place_and_the_nearest_reason_and_no_token() {
    let lab = Issuer::new("a");
    let authentication = compile(vec![rule_of("other", &Issuer::new("b")), rule(&lab)]);
    let token = lab.sign(&claims(&json!({"exp": NOW - 100})));
    let refused = authentication.authenticate(&mut bearer(&token), NOW).unwrap_err().to_string();
    assert_eq!(refused, "the token in header authorization is refused: it expired 100 s ago");
}
