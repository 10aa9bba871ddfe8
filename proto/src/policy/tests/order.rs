//! CUSTOM before DENY before ALLOW; AUDIT and dry runs for the record only (policy semantics 1.2, 1.6).

use http::StatusCode;

use super::*;

fn custom(provider: &str, rules: Vec<wire::Rule>) -> wire::Policy {
    wire::Policy { provider: provider.to_owned(), ..written(wire::Action::Custom, "ask", rules) }
}

fn admin() -> wire::Rule {
    to(wire::Operation { paths: list(&["/admin*"]), ..Default::default() })
}

fn anything() -> wire::Rule {
    wire::Rule::default()
}

fn grpc(name: &str) -> Provider {
    Provider::new(name, ProviderProtocol::Grpc, "ext.shop", 9000)
}

fn set(policies: Vec<wire::Policy>, providers: &[Provider]) -> PolicySet {
    let providers = providers.iter().map(Provider::to_wire).collect();
    PolicySet::from_wire(wire::PolicySet { policies, providers, ..Default::default() }, trust(&local()))
        .unwrap()
}

fn asked(decision: &Decision) -> Vec<&str> {
    match decision {
        Decision::Ask(providers) => providers.iter().map(|provider| provider.name.as_str()).collect(),
        _ => vec![],
    }
}

fn denial(decision: Decision) -> Denial {
    match decision {
        Decision::Deny(denial) => denial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_authorizer_is_asked_about_what_a_rule_of_its_policies_matches() {
    let set = set(vec![custom("ext", vec![admin()])], &[grpc("ext")]);
    let none = Answers::default();
    assert_eq!(asked(&decide(&set, &request("GET", "/admin"), &none)), ["ext"]);
    assert!(matches!(decide(&set, &request("GET", "/"), &none), Decision::Allow(_)));

    let answered = |answer| decide(&set, &request("GET", "/admin"), &Answers::default().with("ext", answer));
    assert!(matches!(answered(Answer::Allow), Decision::Allow(_)));
    let denied = denial(answered(Answer::Deny));
    assert_eq!(denied.kind, DenialKind::Authorizer { provider: "ext".to_owned() });
    assert_eq!(denied.reason, "policy shop/ask rule 1: the external authorizer ext refuses it");
}

#[test]
fn an_authorizer_that_fails_denies_unless_it_fails_open() {
    let failed = Answers::default().with("ext", Answer::Failed("no answer in 1s".to_owned()));
    let closed = Provider { status_on_error: StatusCode::SERVICE_UNAVAILABLE, ..grpc("ext") };
    let decided = decide(&set(vec![custom("ext", vec![anything()])], &[closed]), &stream(), &failed);
    let kind =
        DenialKind::AuthorizerFailed { provider: "ext".to_owned(), status: StatusCode::SERVICE_UNAVAILABLE };
    let denied = denial(decided);
    assert_eq!(denied.kind, kind);
    assert!(denied.reason.contains("no answer in 1s"));

    let open = Provider { fail_open: true, ..grpc("ext") };
    let decided = decide(&set(vec![custom("ext", vec![anything()])], &[open]), &stream(), &failed);
    assert!(matches!(decided, Decision::Allow(_)));
}

#[test]
fn an_authorizers_yes_overrides_neither_a_deny_nor_the_implicit_one() {
    let yes = Answers::default().with("ext", Answer::Allow);
    let ask = || custom("ext", vec![anything()]);
    let denying = set(vec![deny(vec![anything()]), ask()], &[grpc("ext")]);
    assert_eq!(asked(&decide(&denying, &stream(), &Answers::default())), ["ext"], "it is asked first");
    assert!(matches!(decide(&denying, &stream(), &yes), Decision::Deny(_)));
    let allowing = set(vec![allow(vec![admin()]), ask()], &[grpc("ext")]);
    assert!(matches!(decide(&allowing, &request("GET", "/"), &yes), Decision::Deny(_)));
}

#[test]
fn each_authorizer_is_asked_about_its_own_and_one_no_is_enough() {
    let policies =
        vec![custom("a", vec![admin()]), custom("b", vec![anything()]), custom("a", vec![anything()])];
    let set = set(policies, &[grpc("a"), grpc("b")]);
    let facts = request("GET", "/admin");
    assert_eq!(asked(&decide(&set, &facts, &Answers::default())), ["a", "b"]);
    let one = Answers::default().with("a", Answer::Allow);
    assert_eq!(asked(&decide(&set, &facts, &one)), ["b"]);
    assert!(matches!(decide(&set, &facts, &one.with("b", Answer::Deny)), Decision::Deny(_)));
}

#[test]
fn an_undefined_provider_denies_what_would_ask_it_and_passes_the_rest() {
    let set = set(vec![custom("missing", vec![admin()])], &[]);
    let denied = denial(decide(&set, &request("GET", "/admin"), &Answers::default()));
    assert!(matches!(denied.kind, DenialKind::AuthorizerFailed { .. }), "{denied:?}");
    assert!(denied.reason.contains("\"missing\""));
    assert!(passes(&set, &request("GET", "/")));
    assert!(set.complaints().iter().any(|line| line.contains("missing")));
}

#[test]
fn an_http_authorizer_is_not_asked_about_an_opaque_stream_and_a_grpc_one_is() {
    let http = Provider::new("ext", ProviderProtocol::Http(HttpCheck::default()), "ext.shop", 80);
    assert!(passes(&set(vec![custom("ext", vec![anything()])], &[http]), &stream()));
    let asking = set(vec![custom("ext", vec![admin()])], &[grpc("ext")]);
    assert_eq!(
        asked(&decide(&asking, &stream(), &Answers::default())),
        ["ext"],
        "its HTTP fields are dropped there"
    );
}

#[test]
fn an_audit_marks_and_changes_no_verdict() {
    let audit = written(wire::Action::Audit, "watch", vec![when("source.namespace", &["x"], &[]), admin()]);
    let set = set(vec![audit], &[]);
    let facts = request("GET", "/admin");
    assert!(
        passes(&set, &facts) && passes(&set, &request("GET", "/")),
        "nor is anything denied by implication"
    );
    assert_eq!(audited_by(&set, &facts).as_deref(), Some("shop/watch rule 2"));
    assert_eq!(audited_by(&set, &request("GET", "/")), None);
    assert_eq!(audited_by(&set, &stream()).as_deref(), Some("shop/watch rule 2"), "HTTP fields are dropped");
}

#[test]
fn a_dry_run_is_told_and_not_enforced() {
    let dry = |policy| wire::Policy { dry_run: true, ..policy };
    assert_eq!(shadow(&set(vec![allow(vec![anything()])], &[]), &stream()), None);

    let facts = request("GET", "/");
    let implied = set(vec![dry(allow(vec![admin()]))], &[]);
    assert!(passes(&implied, &facts), "no implicit deny");
    let Some(Shadow::Deny(denied)) = shadow(&implied, &facts) else { panic!("it would be denied") };
    assert_eq!(denied.reason, "policy shop/allow rule 1: path / is not in [/admin*]");
    let Some(Shadow::Allow { by }) = shadow(&implied, &request("GET", "/admin")) else { panic!() };
    assert_eq!(by.as_deref(), Some("shop/allow rule 1"));

    let denying = set(vec![dry(deny(vec![anything()])), allow(vec![anything()])], &[]);
    assert!(passes(&denying, &facts));
    assert!(matches!(shadow(&denying, &facts), Some(Shadow::Deny(_))));
    let other = set(vec![dry(deny(vec![admin()]))], &[]);
    assert_eq!(shadow(&other, &facts), Some(Shadow::Allow { by: None }));

    let asking = set(vec![dry(custom("ext", vec![anything()]))], &[grpc("ext")]);
    assert_eq!(asked(&decide(&asking, &facts, &Answers::default())), ["ext"]);
    assert!(asking.complaints().iter().any(|line| line.contains("dry run")));
}

#[test]
fn envoy_metadata_never_matches_so_that_an_allow_rule_is_void_and_a_deny_rule_is_wider() {
    let key = "experimental.envoy.filters.network.mysql_proxy[db.table]";
    let mut rule = when(key, &["[update]"], &[]);
    assert!(!allows(rule.clone(), &stream()));
    assert!(!allows(when(key, &[], &["[update]"]), &stream()));
    assert!(denies(rule.clone(), &stream()));
    rule.from = from(wire::Source { namespaces: list(&["other"]), ..Default::default() }).from;
    assert!(!denies(rule.clone(), &stream()), "the rest of the rule still applies");
    let set = valid(vec![allow(vec![rule])]);
    assert!(set.complaints()[0].contains("experimental") || set.complaints()[0].contains("Envoy"));
}
