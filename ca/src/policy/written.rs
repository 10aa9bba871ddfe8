//! Objects of the law as YAML, as a human would write them.

use std::{collections::BTreeMap, fmt::Write as _};

use douane_proto::wire;

/// The API version of all objects of the law.
const VERSION: &str = "security.istio.io/v1";

/// Labels that are others' at the next deployment.
const PASSING: &[&str] =
    &["pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name"];

/// The labels of a pod by which it can be selected tomorrow as well: none of a deployment's own, none of the mesh's.
#[must_use]
pub fn lasting(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_lasting = |key: &str| !PASSING.contains(&key) && !key.starts_with("douane.io/");
    labels
        .iter()
        .filter(|(key, _)| is_lasting(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// An `AuthorizationPolicy` that selects `labels` (all pods of the namespace where there are none).
#[must_use]
pub fn policy(
    policy: &wire::Policy,
    labels: &BTreeMap<String, String>,
    comments: &[Option<String>],
) -> String {
    let mut text = head("AuthorizationPolicy", &policy.namespace, &policy.name, labels);
    if policy.action() != wire::Action::Allow {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  action: {}", policy.action().as_str_name());
    }
    text.push_str("  rules:\n");
    for (index, rule) in policy.rules.iter().enumerate() {
        if let Some(Some(comment)) = comments.get(index) {
            let _ = writeln!(text, "  # {comment}");
        }
        for line in self::rule(rule).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// A `PeerAuthentication` with one port in another mode.
#[must_use]
pub fn peer_authentication(
    namespace: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
    port: u16,
    mode: &str,
) -> String {
    let head = head("PeerAuthentication", namespace, name, labels);
    format!("{head}  portLevelMtls:\n    {port}: {{mode: {mode}}}\n")
}

/// A rule, as an entry of `rules`.
#[must_use]
pub fn rule(rule: &wire::Rule) -> String {
    let mut lines = Vec::new();
    if !rule.from.is_empty() {
        lines.push("from:".to_owned());
        lines.extend(rule.from.iter().map(|one| format!("- source: {}", flow(&source(one)))));
    }
    if !rule.to.is_empty() {
        lines.push("to:".to_owned());
        lines.extend(rule.to.iter().map(|one| format!("- operation: {}", flow(&operation(one)))));
    }
    if !rule.when.is_empty() {
        lines.push("when:".to_owned());
        for one in &rule.when {
            let key = format!("key: {}", scalar(&one.key));
            let values = lists(&[("values", &one.values), ("notValues", &one.not_values)]);
            lines.push(format!("- {{{}}}", [vec![key], values].concat().join(", ")));
        }
    }
    if lines.is_empty() {
        return "- {}\n".to_owned();
    }
    let mark = |index| if index == 0 { "- " } else { "  " };
    lines.iter().enumerate().map(|(index, line)| format!("{}{line}\n", mark(index))).collect()
}

/// A text that YAML reads as this text.
#[must_use]
pub fn scalar(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '/' | '.' | '_' | '-');
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    // Whatever could be a number, a date or a mark of YAML's own begins otherwise than with these.
    let begins = text.starts_with(|char: char| char.is_ascii_alphabetic() || char == '/');
    if begins && !is_word && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // JSON's strings are YAML's.
    serde_json::Value::from(text).to_string()
}

fn head(kind: &str, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> String {
    let (namespace, name) = (scalar(namespace), scalar(name));
    let mut text = format!(
        "apiVersion: {VERSION}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
    );
    if !labels.is_empty() {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{}: {}", scalar(key), scalar(value))).collect();
        let _ = writeln!(text, "  selector: {{matchLabels: {{{}}}}}", labels.join(", "));
    }
    text
}

fn source(source: &wire::Source) -> Vec<String> {
    lists(&[
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ])
}

fn operation(operation: &wire::Operation) -> Vec<String> {
    lists(&[
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ])
}

fn lists(fields: &[(&str, &[String])]) -> Vec<String> {
    let written = fields.iter().filter(|(_, values)| !values.is_empty());
    let list = |values: &[String]| values.iter().map(|value| scalar(value)).collect::<Vec<_>>().join(", ");
    written.map(|(name, values)| format!("{name}: [{}]", list(values))).collect()
}

fn flow(fields: &[String]) -> String {
    format!("{{{}}}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_read_otherwise_is_quoted() {
        for plain in ["/orders/1", "GET", "cluster.local/ns/shop/sa/web", "app.kubernetes.io/name"] {
            assert_eq!(scalar(plain), plain);
        }
        for quoted in ["8080", "no", "*", "/a/{*}", "/a b", "", "a: b", "1e3", "-", "~"] {
            assert_eq!(scalar(quoted), format!("{quoted:?}"));
        }
    }
}
