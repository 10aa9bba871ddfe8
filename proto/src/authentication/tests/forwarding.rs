//! What the application, and a policy, sees of a token that was accepted.

use super::*;

fn passed(rules: Vec<wire::JwtRule>, mut request: RequestFacts) -> RequestFacts {
    compile(rules).authenticate(&mut request, NOW).unwrap();
    request
}

fn forwarding(rule: wire::JwtRule) -> wire::JwtRule {
    wire::JwtRule { forward_original_token: true, ..rule }
}

fn claim(header: &str, claim: &str) -> wire::ClaimHeader {
    wire::ClaimHeader { header: header.to_owned(), claim: claim.to_owned() }
}

fn value<'a>(request: &'a RequestFacts, name: &str) -> Option<&'a str> {
    request.headers.get(name)?.to_str().ok()
}

#[test]
fn a_token_is_taken_out_of_its_place_unless_it_is_forwarded() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let authorization = format!("Bearer {token}");

    let taken = passed(vec![rule(&lab)], bearer(&token));
    assert_eq!((value(&taken, "authorization"), subject(&taken)), (None, Some("ann")));

    let forwarded = passed(vec![forwarding(rule(&lab))], bearer(&token));
    assert_eq!(
        (value(&forwarded, "authorization"), subject(&forwarded)),
        (Some(&*authorization), Some("ann"))
    );
}

#[test]
fn other_values_of_the_header_stay() {
    let lab = Issuer::new("a");
    let authorization = format!("Bearer {}", lab.sign(&good()));
    let both = request("/", &[("authorization", &authorization), ("authorization", "Basic YTpi")]);
    assert_eq!(value(&passed(vec![rule(&lab)], both), "authorization"), Some("Basic YTpi"));
}

#[test]
fn other_parameters_stay_byte_by_byte() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    for (before, after, left) in [
        ("", "", None),
        ("a=%41+b&", "", Some("a=%41+b")),
        ("", "&a=%2f;c", Some("a=%2f;c")),
        ("a=1&&", "&=&%zz", Some("a=1&&=&%zz")),
    ] {
        let path = format!("/?{before}access_token={token}{after}");
        let target = passed(vec![rule(&lab)], request(&path, &[])).target;
        assert_eq!((target.query.as_deref(), &*target.path), (left, "/"));
    }
    let path = format!("/?access_token={token}&a");
    assert_eq!(passed(vec![forwarding(rule(&lab))], request(&path, &[])).target.path_and_query(), path);
}

#[test]
fn other_cookies_stay() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let from_cookie = wire::JwtRule { from_cookies: vec!["jwt".to_owned()], ..rule(&lab) };
    for (line, left) in [
        (format!("jwt={token}"), None),
        (format!("a=\"b\"; jwt={token}; c"), Some("a=\"b\"; c")),
        (format!("jwt=\"{token}\"; a=b=c"), Some("a=b=c")),
    ] {
        let passed = passed(vec![from_cookie.clone()], request("/", &[("cookie", &line)]));
        assert_eq!(value(&passed, "cookie"), left);
    }
}

#[test]
fn the_rule_that_accepts_a_token_says_whether_it_is_forwarded() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let strict = wire::JwtRule { audiences: vec!["nobody".to_owned()], ..rule(&lab) };
    let passed = passed(vec![strict, forwarding(rule(&lab)), rule(&lab)], bearer(&token));
    assert!(value(&passed, "authorization").is_some());
}

#[test]
fn the_payload_is_told_in_base64url_without_padding() {
    let lab = Issuer::new("a");
    let token = lab.sign(&good());
    let told = wire::JwtRule { output_payload_to_header: "X-Payload".to_owned(), ..rule(&lab) };
    let passed = passed(vec![told], bearer(&token));
    assert_eq!(value(&passed, "x-payload"), token.split('.').nth(1));
}

#[test]
fn text_numbers_and_flags_are_told_with_dots_for_nesting() {
    let lab = Issuer::new("a");
    let token = lab.sign(&claims(&json!({
        "age": 7, "below": -1, "admin": true, "list": ["a"], "map": {"in": {"side": "x"}}, "gone": null,
        "empty": "", "broken": "a\r\nx-role: admin", "wide": "jürgen",
    })));
    let outputs = [
        ("x-sub", "sub", Some("ann")),
        ("x-age", "age", Some("7")),
        ("x-below", "below", Some("-1")),
        ("x-admin", "admin", Some("true")),
        ("x-side", "map.in.side", Some("x")),
        ("x-list", "list", None),
        ("x-map", "map", None),
        ("x-gone", "gone", None),
        ("x-missing", "map.out.side", None),
        ("x-empty", "empty", None),
        ("x-broken", "broken", None),
    ];
    let told = wire::JwtRule {
        output_claim_to_headers: outputs
            .iter()
            .map(|(name, path, _)| claim(name, path))
            .chain([claim("x-wide", "wide")])
            .collect(),
        ..rule(&lab)
    };
    let passed = passed(vec![told], bearer(&token));
    for (name, path, expected) in outputs {
        assert_eq!(value(&passed, name), expected, "{path}");
    }
    assert_eq!(passed.headers.get("x-wide").unwrap().as_bytes(), "jürgen".as_bytes());
}

#[test]
fn a_clients_header_of_that_name_is_removed_in_any_case() {
    let lab = Issuer::new("a");
    let told = wire::JwtRule {
        output_payload_to_header: "x-payload".to_owned(),
        output_claim_to_headers: vec![claim("x-user-name", "sub"), claim("x-team", "team")],
        ..rule(&lab)
    };
    let authorization = format!("Bearer {}", lab.sign(&good()));
    let forged = [
        ("x-payload", "forged"),
        ("X-User-Name", "root"),
        ("x-user-name", "root"),
        ("x_user_name", "root"),
        ("x-team", "root"),
        ("x-teams", "stays"),
    ];
    let preflight = [("origin", "a"), ("access-control-request-method", "GET")];
    let cases = [
        (Method::GET, vec![], None),
        (Method::OPTIONS, preflight.to_vec(), None),
        (Method::GET, vec![("authorization", authorization.as_str())], Some("ann")),
    ];
    for (method, more, user) in cases {
        let headers: Vec<_> = forged.iter().copied().chain(more).collect();
        let mut request = request("/", &headers);
        request.method = method;
        let passed = passed(vec![told.clone()], request);
        assert_eq!(value(&passed, "x-user-name"), user);
        assert_eq!(passed.headers.get_all("x-user-name").iter().count(), usize::from(user.is_some()));
        assert_eq!(value(&passed, "x-payload").is_some(), user.is_some());
        assert_eq!((value(&passed, "x_user_name"), value(&passed, "x-team")), (None, None));
        assert_eq!(value(&passed, "x-teams"), Some("stays"));
    }
}

#[test]
fn of_two_tokens_that_set_one_header_the_users_does() {
    let (lab, bank) = (Issuer::new("a"), Issuer::new("b"));
    let told = |rule: wire::JwtRule, name: &str| wire::JwtRule {
        from_headers: vec![header(name, "")],
        output_claim_to_headers: vec![claim("x-user", "sub")],
        ..rule
    };
    let rules = vec![told(rule_of("bank", &bank), "x-bank"), told(rule(&lab), "x-lab")];
    let of_bank = bank.sign(&json!({"iss": "bank", "sub": "bob"}));
    let both = [("x-lab", lab.sign(&good())), ("x-bank", of_bank)];
    let both: Vec<_> = both.iter().map(|(name, token)| (*name, token.as_str())).collect();
    let passed = passed(rules, request("/", &both));
    assert_eq!((subject(&passed), value(&passed, "x-user")), (Some("bob"), Some("bob")));
}

#[test]
fn a_header_that_may_not_be_set_is_not_and_is_complained_about() {
    let lab = Issuer::new("a");
    let names = [
        "x-douane-peer",
        "X_Douane_Peer",
        "x-forwarded-client-cert",
        "Host",
        ":authority",
        "connection",
        "Content-Length",
        "transfer-encoding",
        "a b",
        "",
    ];
    for name in names {
        let told = wire::JwtRule { output_claim_to_headers: vec![claim(name, "sub")], ..rule(&lab) };
        let authentication = Authentication::from_wire(&[message(vec![told])]);
        assert_eq!(authentication.complaints().len(), 1, "{name}");
        let mut request = bearer(&lab.sign(&good()));
        authentication.authenticate(&mut request, NOW).unwrap();
        assert!(request.headers.is_empty(), "{name}");
    }
}
