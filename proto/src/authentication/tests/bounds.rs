//! What strangers send: too much of it, and anything at all.

use proptest::prelude::*;

use super::*;

#[test]
fn more_than_sixteen_tokens_are_refused() {
    let lab = Issuer::new("a");
    let authentication = compile(vec![rule(&lab)]);
    let ask = |count: u64| {
        let token = |number| lab.sign(&claims(&json!({"jti": number})));
        let values: Vec<String> = (0..count).map(|number| format!("Bearer {}", token(number))).collect();
        let headers: Vec<_> = values.iter().map(|value| ("authorization", value.as_str())).collect();
        authentication.authenticate(&mut request("/", &headers), NOW)
    };
    assert_eq!(ask(16), Ok(()));
    let refused = ask(17).unwrap_err().to_string();
    assert!(refused.ends_with("the request has more than 16 tokens"), "{refused}");
}

#[test]
fn a_token_of_more_than_16_kib_is_refused() {
    let lab = Issuer::new("a");
    let token = lab.sign(&claims(&json!({"pad": "x".repeat(16 * 1024)})));
    assert!(is_invalid(&compile(vec![rule(&lab)]), bearer(&token)));
}

#[test]
fn bytes_that_are_no_text_are_no_token() {
    let lab = Issuer::new("a");
    let mut request = request("/", &[]);
    request.headers.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap());
    assert!(is_invalid(&compile(vec![rule(&lab)]), request));
}

#[test]
fn a_request_without_a_token_costs_no_allocation() {
    let authentication = everywhere(&Issuer::new("a"));
    let headers = [("authorization", "Basic YTpi"), ("cookie", "a=b; d=e"), ("x-role", "admin")];
    let mut request = request("/orders?a=b&d=e", &headers);
    let allocated = allocation_counter::measure(|| authentication.authenticate(&mut request, NOW).unwrap());
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}

/// Looks at every kind of place.
fn everywhere(key: &Issuer) -> Authentication {
    let places = wire::JwtRule {
        from_headers: vec![header("x-jwt", "T "), header("cookie", "T ")],
        from_params: vec!["p".to_owned()],
        from_cookies: vec!["c".to_owned(), String::new()],
        output_payload_to_header: "x-out".to_owned(),
        ..rule(key)
    };
    compile(vec![rule(key), places])
}

proptest! {
    #[test]
    fn no_request_panics_and_none_without_a_good_token_has_a_user(
        query in "([pab=&%+]|access_token=|%70|\\PC){0,10}",
        headers in proptest::collection::vec((
            "authorization|cookie|x-jwt|x-out|x-a", "(Bearer |T |c=|;|\"|[a-z.]|\\PC){0,8}",
        ), 0..5),
    ) {
        thread_local!(static LAB: Authentication = everywhere(&Issuer::new("a")));
        let Ok(target) = Target::parse("shop", &format!("/?{query}"), PathNormalization::Base) else {
            return Ok(());
        };
        let mut request = request("/", &[]);
        request.target = target;
        for (name, value) in &headers {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                request.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
        }
        let mut passed = request.clone();
        if LAB.with(|lab| lab.authenticate(&mut passed, NOW)).is_ok() {
            // Nothing was taken out, and nothing added, but for what only rules may say.
            request.headers.remove("x-out");
            prop_assert_eq!(passed.token, None);
            prop_assert_eq!(passed.target, request.target);
            prop_assert_eq!(passed.headers, request.headers);
        }
    }

    #[test]
    fn a_token_is_taken_out_and_all_other_parameters_stay(
        before in "([ab]=[%+a-c]{0,3}&){0,3}", after in "(&[ab]=[%+a-c]{0,3}){0,3}",
    ) {
        thread_local!(static LAB: (Issuer, Authentication) = {
            let lab = Issuer::new("a");
            let authentication = compile(vec![rule(&lab)]);
            (lab, authentication)
        });
        LAB.with(|(lab, authentication)| {
            let query = format!("{before}access_token={}{after}", lab.sign(&good()));
            let mut request = request(&format!("/?{query}"), &[]);
            authentication.authenticate(&mut request, NOW).unwrap();
            let left = format!("{before}{}", after.strip_prefix('&').unwrap_or(""));
            let left = if after.is_empty() { left.strip_suffix('&').unwrap_or("") } else { &left };
            prop_assert_eq!(request.target.query.unwrap_or_default(), left);
            Ok(())
        })?;
    }
}
