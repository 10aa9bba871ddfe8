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

    assert_eq!(read.attachment.scope.namespace, "shop");
    assert_eq!(read.attachment.scope.selector["app"], "orders");
    let message = read.policy;
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
    assert!(authorization(&empty).policy.rules.is_empty());
    assert_eq!(authorization(&policy("  rules: [{}]\n")).policy.rules, [wire::Rule::default()]);
    assert_eq!(authorization(&policy("  selector: {}\n  rules: []\n")).attachment.scope.selector.len(), 0);
}

#[test]
fn requests_tokens_and_trust_domains_arrive_at_their_places() {
    let read = reading(&policy(
        "  action: CUSTOM
  provider: {name: ext}
  rules:
    - from:
        - source:
            requestPrincipals: [a]
            notRequestPrincipals: [b]
            remoteIpBlocks: [10.0.0.1]
            notRemoteIpBlocks: [10.0.0.2]
            trustDomains: [c]
            notTrustDomains: [d]
    - {}
",
    ));
    let Some(Kind::AuthorizationPolicy(law)) = read.resource.map(|resource| resource.kind) else {
        panic!("a policy: {:?}", read.flaws)
    };
    let one = |value: &str| vec![value.to_owned()];

    assert_eq!(law.policy.action, i32::from(wire::Action::Custom));
    assert_eq!(law.policy.provider, "ext");
    assert_eq!(law.rule_lines, [8, 16]);
    assert_eq!(
        law.policy.rules[0].from[0],
        wire::Source {
            request_principals: one("a"),
            not_request_principals: one("b"),
            remote_ip_blocks: one("10.0.0.1"),
            not_remote_ip_blocks: one("10.0.0.2"),
            trust_domains: one("c"),
            not_trust_domains: one("d"),
            ..Default::default()
        }
    );
}

#[test]
fn a_policy_as_kubectl_prints_it_is_read() {
    let text = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {\"apiVersion\":\"security.istio.io/v1\"}
  creationTimestamp: \"2026-01-31T12:00:00Z\"
  generation: 2
  managedFields:
  - apiVersion: security.istio.io/v1
    fieldsType: FieldsV1
    fieldsV1: {f:spec: {.: {}, f:rules: {}}}
    manager: kubectl
    operation: Update
    time: \"2026-01-31T12:00:00Z\"
  name: httpbin
  namespace: foo
  ownerReferences:
  - {apiVersion: v1, kind: ConfigMap, name: x, uid: y, controller: true}
  resourceVersion: \"1234\"
  uid: 8d5a
spec:
  rules:
  - to:
    - operation: {methods: [GET]}
status:
  conditions: [{type: Reconciled, status: \"True\"}]
  observedGeneration: 2
";
    let resource = only(text);
    assert_eq!(resource.metadata.created, Created::parse("2026-01-31T12:00:00Z"));
    assert_eq!(
        authorization(
            &text.replace("creationTimestamp: \"2026-01-31T12:00:00Z\"", "creationTimestamp: null")
        )
        .rule_lines,
        [24]
    );
}

#[test]
fn a_dry_run_is_what_go_calls_true_and_what_is_neither_is_enforced_and_said() {
    let with = |value: &str| {
        authorization(&policy("  rules: [{}]\n").replace(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{istio.io/dry-run: '{value}'}}}}"),
        ))
    };
    for truth in ["1", "t", "T", "true", "TRUE", "True"] {
        assert!(with(truth).policy.dry_run && with(truth).notes.is_empty(), "{truth}");
    }
    for untruth in ["0", "f", "F", "false", "FALSE", "False"] {
        assert!(!with(untruth).policy.dry_run && with(untruth).notes.is_empty(), "{untruth}");
    }
    for neither in ["", "yes", "tRUE", "on"] {
        assert!(!with(neither).policy.dry_run, "{neither:?}");
        assert!(with(neither).notes[0].contains("enforced"), "{neither:?}");
    }
}

#[test]
fn target_refs_are_kept_and_their_author_is_told() {
    let law = authorization(&policy(
        "  targetRefs:\n    - {group: gateway.networking.k8s.io, kind: Gateway, name: x}\n    - {kind: HTTPRoute, name: y, namespace: shop}\n",
    ));
    assert_eq!(law.attachment.targets[0].value.kind, "Gateway");
    let notes: Vec<_> = law.notes.iter().map(|note| (note.line, note.value.as_str())).collect();
    assert!(matches!(notes[0], (6, note) if note.contains("governs no sidecar")), "{notes:?}");
    assert!(matches!(notes[1], (7, note) if note.contains("HTTPRoute")), "{notes:?}");

    let one = authorization(&policy("  targetRef: {kind: Service, name: x}\n  rules: [{}]\n"));
    assert_eq!(one.attachment.targets.len(), 1);
    let none = authorization(&policy("  targetRefs: []\n  rules: [{}]\n"));
    assert!(none.attachment.targets.is_empty() && none.notes.is_empty());
}

#[test]
fn an_empty_list_of_values_beside_others_is_none() {
    let law = authorization(&policy(
        "  rules: [{from: [{source: {principals: [], namespaces: [a]}}], when: []}]\n",
    ));
    assert!(law.policy.rules[0].from[0].principals.is_empty());
    assert!(law.policy.rules[0].unreadable.is_empty());
}

#[test]
fn what_is_not_law_is_refused_with_its_line() {
    for (spec, line, cause) in [
        ("  action: allow\n", 5, Cause::Invalid),
        ("  action: DENY\n", 4, Cause::Invalid),
        ("  targetRefs: [{kind: Gateway}]\n", 5, Cause::Invalid),
        ("  targetRefs: [{kind: Gateway, name: x, namespace: other}]\n", 5, Cause::Invalid),
        ("  targetRefs: [{kind: Gateway, name: x, nme: y}]\n", 5, Cause::Unsupported),
        ("  targetRef: {kind: Gateway, name: x}\n  selector: {matchLabels: {a: b}}\n", 6, Cause::Invalid),
        (
            "  targetRef: {kind: Gateway, name: x}\n  targetRefs: [{kind: Gateway, name: x}]\n",
            5,
            Cause::Invalid,
        ),
        ("  selctor: {}\n", 5, Cause::Unsupported),
        ("  selector: {matchLabel: {a: b}}\n", 5, Cause::Unsupported),
        ("  selector: {matchLabels: {a: 'b*'}}\n", 5, Cause::Invalid),
        ("  selector: {matchLabels: {a: 1}}\n", 5, Cause::Invalid),
        ("  rules:\n", 5, Cause::Invalid),
        ("  rules:\n    -\n", 6, Cause::Invalid),
        ("  rules:\n    - from:\n", 6, Cause::Invalid),
        ("  rules:\n    - from: []\n", 6, Cause::Invalid),
        ("  rules:\n    - to: []\n", 6, Cause::Invalid),
        ("  rules:\n    - form: []\n", 6, Cause::Unsupported),
        ("  rules:\n    - from:\n        - source:\n", 7, Cause::Invalid),
        ("  rules:\n    - from:\n        - source: {}\n", 7, Cause::Invalid),
        ("  rules:\n    - to:\n        - operation: {}\n", 7, Cause::Invalid),
        ("  rules:\n    - from:\n        - source:\n            principals: []\n", 7, Cause::Invalid),
        ("  rules:\n    - from:\n        - source:\n            principal: [a]\n", 8, Cause::Unsupported),
        (
            "  rules:\n    - from:\n        - source:\n            ipBlocks:\n              - 10.0.0.1\n              - ten\n",
            10,
            Cause::Invalid,
        ),
        ("  rules:\n    - to:\n        - operation:\n            ports: [8080]\n", 8, Cause::Invalid),
        ("  rules:\n    - to:\n        - operation:\n            ports: ['http']\n", 8, Cause::Invalid),
        ("  rules:\n    - when:\n        - key: source.ip\n", 7, Cause::Invalid),
        ("  rules:\n    - when:\n        - values: [a]\n", 7, Cause::Invalid),
        ("  rules:\n    - when:\n        - key: source.nam\n          values: [a]\n", 7, Cause::Invalid),
    ] {
        let error = only_error(&policy(spec));
        assert_eq!((error.location.line, error.cause), (line, cause), "{error}\n{spec}");
        assert_eq!(error.subject.as_deref(), Some("AuthorizationPolicy shop/orders-callers"));
        assert!(!error.mend.is_empty() && error.doubt.is_some());
    }
    let many = "    - {kind: Gateway, name: x}\n".repeat(17);
    assert_eq!(only_error(&policy(&format!("  targetRefs:\n{many}"))).location.line, 22);
}
