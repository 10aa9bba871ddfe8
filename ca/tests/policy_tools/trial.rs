//! `policy test`: what is judged, what is printed, and what does not stop it.

use crate::desk::{Desk, Said};

const READERS: &str = "
- name: readers
  policies:
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: readers, namespace: shop}
    spec:
      selector: {matchLabels: {app: orders}}
      rules:
      - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
        to: [{operation: {methods: [GET]}}]
  workload: {namespace: shop, labels: {app: orders}, service_account: orders}
  requests:
  - {source: {principal: cluster.local/ns/shop/sa/web}, expect: allow}
  - {source: {principal: spiffe://cluster.local/ns/shop/sa/web}, method: PUT, expect: deny}
  - {source: {principal: null}, expect: deny}
";

fn run(cases: &str) -> Said {
    Desk::new().with("cases.yaml", cases).policy(&["test", "-v", "cases.yaml"])
}

// Requests of the web workload, one a line, to a workload in foo with these policies.
fn case(head: &str, requests: &[&str]) -> String {
    let mut text = format!("- name: one\n{head}\n  requests:\n");
    for request in requests {
        text.push_str(&format!("  - {{source: {{principal: cluster.local/ns/foo/sa/web}}, {request}}}\n"));
    }
    text
}

#[test]
fn cases_that_become_what_is_expected_pass() {
    let said = run(READERS);

    said.exits(0).says("3 passed, 0 failed").says("policy shop/readers rule 1 allows it");
}

#[test]
fn a_failure_is_told_with_its_line_and_the_decisions_explanation() {
    let wrong = READERS.replace("method: PUT, expect: deny", "method: PUT, expect: allow");
    let said = Desk::new().with("cases.yaml", &wrong).policy(&["test", "cases.yaml"]);

    said.exits(1)
        .says("cases.yaml:15 case readers request 2: expected allow, got deny: policy shop/readers rule 1: method PUT is not in [GET]\n")
        .says("2 passed, 1 failed\n");
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
}

#[test]
fn json_holds_every_request() {
    let desk = Desk::new().with("cases.yaml", READERS);
    let said = desk.policy(&["test", "-o", "json", "cases.yaml"]);

    let report = said.exits(0).json();

    assert_eq!((report["passed"].as_u64(), report["failed"].as_u64()), (Some(3), Some(0)));
    let requests = report["cases"][0]["requests"].as_array().unwrap();
    let verdicts: Vec<_> = requests.iter().map(|one| one["actual"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["allow", "deny", "deny"]);
    assert_eq!(requests[1]["policy"], "shop/readers");
    assert_eq!((requests[1]["rule"].as_u64(), requests[1]["line"].as_u64()), (Some(1), Some(15)));
}

#[test]
fn a_case_that_is_written_wrongly_fails_alone() {
    let said = run(&format!("{}{READERS}", "- {name: slip, polices: [], requests: [{expect: allow}]}"));

    said.exits(1)
        .says("cases.yaml:1 case slip: error: a case has no key \"polices\"; did you mean policies?")
        .says("3 passed, 1 failed");
}

#[test]
fn a_request_that_is_written_wrongly_fails_alone() {
    let cases =
        case("  policies: []", &["methd: GET, expect: allow", "expect: allow", "why: x, expect: allow"]);
    run(&cases).exits(1).says("did you mean method?").says("2 passed, 1 failed");
}

#[test]
fn a_file_that_holds_no_cases_is_no_answer() {
    for text in ["a: [", "name: x", "", "- \"x"] {
        run(text).exits(2);
    }
    Desk::new().policy(&["test", "missing.yaml"]).exits(2);
    Desk::new().policy(&["test"]).exits(2);
}

#[test]
fn a_policy_with_flaws_is_enforced_and_told() {
    let deny = "  policies:
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: broken, namespace: foo}
    spec:
      action: DENY
      rules:
      - to: [{operation: {paths: [/x], ports: [http]}}]
  workload: {namespace: foo}";
    let said = run(&case(deny, &["path: /x, expect: deny", "path: /y, expect: allow"]));

    said.exits(0);
    assert!(
        said.err
            .contains("cases.yaml:9: AuthorizationPolicy foo/broken: spec.rules[0].to[0].operation.ports[0]"),
        "{}",
        said.err
    );
}

#[test]
fn what_is_no_policy_is_an_error_of_its_case() {
    for policy in
        ["[1]", "{apiVersion: v9, kind: Nothing, metadata: {name: a}}", "{kind: AuthorizationPolicy}"]
    {
        let text = format!("  policies: [{policy}]");
        run(&format!("{}{READERS}", case(&text, &["expect: allow"]))).exits(1).says("3 passed, 1 failed");
    }
}

#[test]
fn policies_stand_in_files_and_in_texts_as_well() {
    let allow_nothing = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none, namespace: foo}\nspec: {}\n";
    let text = allow_nothing.replace('\n', "\n    ");
    let cases = format!(
        "{}{}",
        case("  files: [laws/none.yaml]\n  workload: {namespace: foo}", &["expect: deny"]),
        case(&format!("  policies:\n  - |\n    {text}\n  workload: {{namespace: foo}}"), &["expect: deny"]),
    );
    let desk = Desk::new().with("tests/cases.yaml", &cases).with("tests/laws/none.yaml", allow_nothing);

    desk.policy(&["test", "tests/cases.yaml"]).exits(0).says("2 passed");
}

#[test]
fn an_authorizer_that_is_not_said_to_answer_cannot_be_reached() {
    let custom =
        "  mesh: {extension_providers: [{name: ext, type: grpc}, {name: open, type: http, fail_open: true}]}
  policies:
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: asked, namespace: foo}
    spec: {action: CUSTOM, provider: {name: ext}, rules: [{to: [{operation: {paths: [/x]}}]}]}
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: open, namespace: foo}
    spec: {action: CUSTOM, provider: {name: open}, rules: [{to: [{operation: {paths: [/open]}}]}]}
  workload: {namespace: foo}";
    let requests = [
        "path: /x, ext_authz: allow, expect: allow",
        "path: /x, ext_authz: deny, expect: deny",
        "path: /x, ext_authz: error, expect: deny",
        "path: /x, expect: deny",
        "path: /open, expect: allow",
        "path: /open, ext_authz: deny, expect: 403",
        "path: /y, expect: allow",
    ];
    run(&case(custom, &requests)).exits(0);
}

#[test]
fn tokens_of_every_sort_are_minted() {
    let laws = "  policies:
  - apiVersion: security.istio.io/v1
    kind: RequestAuthentication
    metadata: {name: issuer, namespace: foo}
    spec:
      jwtRules:
      - {issuer: i, jwks: $TEST_JWKS}
      - {issuer: j, jwks: '$TEST_JWKS', fromHeaders: [{name: x-token, prefix: 'T '}], fromCookies: [session]}
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: known, namespace: foo}
    spec: {rules: [{from: [{source: {requestPrincipals: [i/s, j/s]}}], when: [{key: 'request.auth.claims[g]', values: [a]}]}]}
  workload: {namespace: foo}";
    let claims = "claims: {iss: i, sub: s, g: [b, a]}";
    let other = "claims: {iss: j, sub: s, g: a}";
    let mut requests = vec![
        "expect: deny, why: no token".to_owned(),
        format!("jwt: {{{claims}}}, expect: allow"),
        format!(
            "jwt: {{state: valid, {claims}, location: {{param: access_token}}}}, path: '/?a=b', expect: allow"
        ),
        format!("jwt: {{{other}, location: {{header: X-Token, prefix: 'T '}}}}, expect: allow"),
        format!("jwt: {{{other}, location: {{cookie: session}}}}, headers: {{cookie: a=b}}, expect: allow"),
        "jwt: {claims: {iss: i, sub: s, g: a, exp: null}}, expect: allow".to_owned(),
        "jwt: {claims: {iss: i, sub: s, g: 1}}, expect: deny".to_owned(),
        "jwt: {claims: {iss: k, sub: s}}, expect: 401".to_owned(),
        "jwt: {state: malformed, raw: a.b.c}, expect: '401'".to_owned(),
        format!(
            "jwt: [{{{claims}}}, {{state: expired, {other}, location: {{cookie: session}}}}], expect: 401"
        ),
    ];
    let wrong = ["expired", "not_yet_valid", "bad_signature", "unknown_kid", "malformed", "alg_none"];
    for state in wrong.into_iter().chain(["alg_hs256_with_public_key"]) {
        requests.push(format!("jwt: {{state: {state}, {claims}}}, expect: '401'"));
    }
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();

    run(&case(laws, &requests)).exits(0);
}

#[test]
fn one_anchor_may_stand_in_hundreds_of_places() {
    let mut cases = case("  workload: &w {namespace: foo}", &["expect: allow"]);
    for number in 0..300 {
        cases.push_str(&format!(
            "- {{name: n{number}, workload: *w, requests: [{{source: {{principal: cluster.local/ns/a/sa/b}}, expect: allow}}]}}\n"
        ));
    }
    run(&cases).exits(0).says("301 passed");
}
