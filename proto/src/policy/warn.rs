//! What a valid policy does that its author may not expect, as lines for a log.

use super::{trust::Trust, value, wrong::bounded};
use crate::wire;

/// One line each.
pub(super) fn warnings(policy: &wire::Policy, trust: Trust<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for rule in &policy.rules {
        for source in &rule.from {
            for text in source.principals.iter().chain(&source.not_principals) {
                found.extend(principal(text, trust));
            }
            for text in source.request_principals.iter().chain(&source.not_request_principals) {
                found.extend(token_principal(text));
            }
        }
        for operation in &rule.to {
            let paths = operation.paths.iter().chain(&operation.not_paths);
            found.extend(paths.filter(|path| value::is_unreachable_path(path)).map(|path| {
                let path = bounded(path);
                format!("the path {path:?} never matches: paths are compared in normal form, without query")
            }));
        }
        for condition in &rule.when {
            let values = || condition.values.iter().chain(&condition.not_values);
            match condition.key.as_str() {
                "source.principal" => found.extend(values().filter_map(|text| principal(text, trust))),
                "request.auth.principal" => found.extend(values().filter_map(|text| token_principal(text))),
                _ => {}
            }
        }
    }
    if policy.dry_run && policy.action == i32::from(wire::Action::Custom) {
        found.push("the authorizer of a CUSTOM policy is asked in a dry run as well, and obeyed".to_owned());
    }
    let key = format!("{}/{}", policy.namespace, policy.name);
    found.into_iter().map(|line| format!("policy {key}: {line}")).collect()
}

fn principal(text: &str, trust: Trust<'_>) -> Option<String> {
    if value::has_scheme(text) {
        let text = bounded(text);
        return Some(format!("{text:?} never matches: a principal is written without spiffe://"));
    }
    let local = trust.local;
    trust
        .is_unexpanded(text)
        .then(|| format!("{:?} is matched as written, the trust domain is {local}", bounded(text)))
}

fn token_principal(text: &str) -> Option<String> {
    if text == "*" || text.contains('/') {
        return None;
    }
    let meant = match (text.starts_with('*'), text.ends_with('*')) {
        (true, _) => "it is compared with the subject of any issuer",
        (_, true) => "it is compared with the issuer of any subject",
        _ => "it never matches",
    };
    Some(format!("{:?} has no slash: {meant}; write issuer/subject", bounded(text)))
}
