//! What an operator writes, and what becomes of it.

use std::path::Path;

use super::*;

const LAW: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders-callers, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  action: ALLOW
  rules:
    - from:
        - source:
            principals: [\"cluster.local/ns/shop/sa/web\"]
      to:
        - operation:
            ports: [\"8080\"]
";

fn read(text: &str) -> Result<Vec<Resource>, Vec<ResourceError>> {
    parse_file(Path::new("law.yaml"), text)
}

fn only_error(text: &str) -> ResourceError {
    let mut errors = read(text).expect_err(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn a_file_of_several_documents_is_read_with_lines() {
    let resources = read(LAW).unwrap();

    let seen: Vec<_> = resources
        .iter()
        .map(|resource| (resource.location.line, resource.kind.name(), resource.metadata.key()))
        .collect();
    assert_eq!(
        seen,
        [
            (1, "Namespace", "/shop".to_owned()),
            (6, "PeerAuthentication", "istio-system/default".to_owned()),
            (11, "AuthorizationPolicy", "shop/orders-callers".to_owned()),
        ]
    );
}

#[test]
fn a_flaw_in_a_rule_is_told_with_its_line_and_whom_it_meant_to_govern() {
    let error = only_error(&LAW.replace("8080", "99999"));

    assert_eq!(error.location.to_string(), "law.yaml:23");
    assert!(error.to_string().contains("AuthorizationPolicy shop/orders-callers"), "{error}");
    let doubt = error.doubt.unwrap();
    assert_eq!(doubt.namespace.as_deref(), Some("shop"));
    assert_eq!(doubt.selector, Some([("app".to_owned(), "orders".to_owned())].into()));
}
