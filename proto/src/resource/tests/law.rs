//! Policies in YAML: each field counts.

use super::*;
use crate::wire;

fn authorization(text: &str) -> AuthorizationPolicy {
    match only(text).kind {
        Kind::AuthorizationPolicy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_of_a_rule_arrives_at_its_place() {
    let text = policy(
        "  selector: {matchLabels: {app: orders}}
  action: DENY
  rules:
    - from:
        - source:
            principals: [a]
            notPrincipals: [b]
            namespaces: [c]
            notNamespaces: [d]
            ipBlocks: [10.0.0.1]
            notIpBlocks: [10.0.0.2]
        - source: {serviceAccounts: [e], notServiceAccounts: [f]}
      to:
        - operation:
            hosts: [g]
            notHosts: [h]
            ports: ['1']
            notPorts: ['2']
            methods: [i]
            notMethods: [j]
            paths: [/k]
            notPaths: [/l]
      when:
        - {key: source.ip, values: [10.0.0.3], notValues: [10.0.0.4]}
",
    );
    let one = |value: &str| vec![value.to_owned()];
    let read = authorization(&text);

    assert_eq!(read.scope.namespace, "shop");
    assert_eq!(read.scope.selector["app"], "orders");
    let message = read.policy.to_wire();
    assert_eq!(message.action, i32::from(wire::Action::Deny));
    assert_eq!(
        message.rules,
        [wire::Rule {
            from: vec![
                wire::Source {
                    principals: one("a"),
                    not_principals: one("b"),
                    namespaces: one("c"),
                    not_namespaces: one("d"),
                    ip_blocks: one("10.0.0.1"),
                    not_ip_blocks: one("10.0.0.2"),
                    ..Default::default()
                },
                wire::Source {
                    service_accounts: one("e"),
                    not_service_accounts: one("f"),
                    ..Default::default()
                },
            ],
            to: vec![wire::Operation {
                hosts: one("g"),
                not_hosts: one("h"),
                ports: one("1"),
                not_ports: one("2"),
                methods: one("i"),
                not_methods: one("j"),
                paths: one("/k"),
                not_paths: one("/l"),
                ..Default::default()
            }],
            when: vec![wire::Condition {
                key: "source.ip".to_owned(),
                values: one("10.0.0.3"),
                not_values: one("10.0.0.4"),
                ..Default::default()
            }],
            ..Default::default()
        }]
    );
}

#[test]
fn an_empty_spec_allows_nothing_and_an_empty_rule_everything() {
    let empty = policy("").replace("spec:\n", "spec: {}\n");
    assert!(authorization(&empty).policy.to_wire().rules.is_empty());
    assert_eq!(authorization(&policy("  rules: [{}]\n")).policy.to_wire().rules, [wire::Rule::default()]);
    assert_eq!(authorization(&policy("  selector: {}\n  rules: []\n")).scope.selector.len(), 0);
}

#[test]
fn what_is_not_law_is_refused_with_its_line() {
    for (spec, line, cause) in [
        ("  action: AUDIT\n", 5, Cause::Unsupported),
        ("  action: CUSTOM\n  provider: {name: x}\n", 6, Cause::Unsupported),
        ("  action: allow\n", 5, Cause::Invalid),
        ("  action: DENY\n", 4, Cause::Invalid),
        ("  targetRefs: [{kind: Gateway, name: x}]\n", 5, Cause::Unsupported),
        ("  selctor: {}\n", 5, Cause::Unsupported),
        ("  selector: {matchLabel: {a: b}}\n", 5, Cause::Unsupported),
        ("  selector: {matchLabels: {a: 'b*'}}\n", 5, Cause::Invalid),
        ("  selector: {matchLabels: {a: 1}}\n", 5, Cause::Invalid),
        ("  rules:\n", 5, Cause::Invalid),
        ("  rules:\n    -\n", 6, Cause::Invalid),
        ("  rules:\n    - from:\n", 6, Cause::Invalid),
        ("  rules:\n    - from: []\n", 6, Cause::Invalid),
        ("  rules:\n    - form: []\n", 6, Cause::Unsupported),
        ("  rules:\n    - from:\n        - source:\n", 7, Cause::Invalid),
        ("  rules:\n    - from:\n        - source: {}\n", 7, Cause::Invalid),
        ("  rules:\n    - from:\n        - principals: [a]\n", 7, Cause::Invalid),
        ("  rules:\n    - from:\n        - source:\n            principals: []\n", 8, Cause::Invalid),
        ("  rules:\n    - from:\n        - source:\n            principal: [a]\n", 8, Cause::Unsupported),
        (
            "  rules:\n    - from:\n        - source:\n            requestPrincipals: [a]\n",
            8,
            Cause::Unsupported,
        ),
        (
            "  rules:\n    - from:\n        - source:\n            remoteIpBlocks: [a]\n",
            8,
            Cause::Unsupported,
        ),
        (
            "  rules:\n    - from:\n        - source:\n            ipBlocks:\n              - 10.0.0.1\n              - ten\n",
            10,
            Cause::Invalid,
        ),
        ("  rules:\n    - to:\n        - operation:\n            ports: [8080]\n", 8, Cause::Invalid),
        ("  rules:\n    - to:\n        - operation:\n            ports: ['http']\n", 8, Cause::Invalid),
        ("  rules:\n    - when:\n        - key: source.ip\n", 7, Cause::Invalid),
        (
            "  rules:\n    - when:\n        - key: request.auth.principal\n          values: [a]\n",
            7,
            Cause::Unsupported,
        ),
        ("  rules:\n    - when:\n        - key: source.nam\n          values: [a]\n", 7, Cause::Invalid),
    ] {
        let error = only_error(&policy(spec));
        assert_eq!((error.location.line, error.cause), (line, cause), "{error}\n{spec}");
        assert_eq!(error.subject.as_deref(), Some("AuthorizationPolicy shop/orders-callers"));
        assert!(!error.mend.is_empty() && error.doubt.is_some());
    }
}

#[test]
fn a_dry_run_is_refused_and_one_that_is_off_is_enforced() {
    let with = |value: &str| {
        policy("  rules: [{}]\n").replace(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{istio.io/dry-run: '{value}'}}}}"),
        )
    };
    assert_eq!(only_error(&with("true")).cause, Cause::Unsupported);
    assert_eq!(only_error(&with("1")).location.line, 3);
    authorization(&with("false"));
    authorization(&with("perhaps"));
}

#[test]
fn strict_is_all_that_a_peer_authentication_may_demand() {
    let text = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata:\n  name: default\nspec: {spec}\n"
        )
    };
    let mode = |spec: &str| match only(&text(spec)).kind {
        Kind::PeerAuthentication(authentication) => authentication.mode,
        other => panic!("{other:?}"),
    };
    assert_eq!(mode("{mtls: {mode: STRICT}}"), MtlsMode::Strict);
    assert_eq!(mode("{mtls: {mode: UNSET}}"), MtlsMode::Unset);
    assert_eq!(mode("{}"), MtlsMode::Unset);
    for (spec, cause) in [
        ("{mtls: {mode: PERMISSIVE}}", Cause::Unsupported),
        ("{mtls: {mode: DISABLE}}", Cause::Unsupported),
        ("{mtls: {mode: strict}}", Cause::Invalid),
        ("{mtls: {}, portLevelMtls: {8080: {mode: STRICT}}}", Cause::Invalid),
        ("{mtls: {}, portLevelMtls: {'8080': {mode: STRICT}}}", Cause::Unsupported),
        ("{mtls: }", Cause::Invalid),
        ("", Cause::Invalid),
    ] {
        let error = only_error(&text(spec));
        assert_eq!(error.location.line, 5, "{error}");
        assert!(error.cause == cause || error.cause == Cause::Syntax, "{error}");
    }
}
