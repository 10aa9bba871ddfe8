//! What a single valid policy says that surely is not meant.

use douane_proto::{wire, yaml::bounded};

use super::{never, wildcard::Wildcard};

/// Each with the index of its rule.
pub(super) fn advise(policy: &wire::Policy) -> Vec<(usize, String)> {
    let mut advice = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let mut lines = Vec::new();
        rule.from.iter().for_each(|from| source(from, &mut lines));
        rule.to.iter().for_each(|to| operation(to, &mut lines));
        rule.when.iter().for_each(|when| condition(when, &mut lines));
        lines.extend(never::holds(rule));
        opaque(policy.action(), rule, &mut lines);
        advice.extend(lines.into_iter().map(|line| (index, line)));
    }
    advice
}

fn source(source: &wire::Source, lines: &mut Vec<String>) {
    for (name, values, not_values) in [
        ("principals", &source.principals, &source.not_principals),
        ("requestPrincipals", &source.request_principals, &source.not_request_principals),
        ("namespaces", &source.namespaces, &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts, &source.not_service_accounts),
        ("trustDomains", &source.trust_domains, &source.not_trust_domains),
        ("ipBlocks", &source.ip_blocks, &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks, &source.not_remote_ip_blocks),
    ] {
        contradiction(name, values, not_values, lines);
        // A namespace's star may stand anywhere.
        if !matches!(name, "namespaces" | "ipBlocks" | "remoteIpBlocks") {
            values.iter().chain(not_values).for_each(|value| inner_star(name, value, lines));
        }
    }
    for account in source.service_accounts.iter().chain(&source.not_service_accounts) {
        if account.contains('*') {
            lines.push(format!("serviceAccounts {:?} never matches: it has no wildcards", bounded(account)));
        }
    }
    source.principals.iter().chain(&source.not_principals).for_each(|text| principal(text, lines));
    strangers_to_namespaces(source, lines);
}

// Every principal is TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT. Its scheme, and what is half a star, are told elsewhere.
fn principal(text: &str, lines: &mut Vec<String>) {
    let Wildcard::Exact(exact) = Wildcard::read(text) else { return };
    let parts: Vec<&str> = exact.split('/').collect();
    let is_whole = matches!(parts.as_slice(), [_, "ns", _, "sa", _]);
    if !is_whole && !exact.starts_with("spiffe://") {
        lines.push(format!(
            "the principal {:?} never matches: one is TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, such as \
             cluster.local/ns/shop/sa/web",
            bounded(text)
        ));
    }
}

// A principal tells its namespace.
fn strangers_to_namespaces(source: &wire::Source, lines: &mut Vec<String>) {
    let is_plain = |text: &String| !text.contains('*');
    if source.namespaces.is_empty()
        || source.principals.is_empty()
        || !source.namespaces.iter().chain(&source.principals).all(is_plain)
    {
        return;
    }
    let is_within = |principal: &String| {
        let namespace = principal.split('/').nth(2);
        namespace.is_none_or(|namespace| source.namespaces.iter().any(|known| known == namespace))
    };
    if !source.principals.iter().any(is_within) {
        lines.push("the rule never matches: none of principals is of one of namespaces".to_owned());
    }
}

fn operation(operation: &wire::Operation, lines: &mut Vec<String>) {
    for (name, values, not_values) in [
        ("hosts", &operation.hosts, &operation.not_hosts),
        ("ports", &operation.ports, &operation.not_ports),
        ("methods", &operation.methods, &operation.not_methods),
        ("paths", &operation.paths, &operation.not_paths),
    ] {
        contradiction(name, values, not_values, lines);
        for value in values.iter().chain(not_values) {
            if name != "ports" && !value.contains('{') {
                inner_star(name, value, lines);
            }
        }
    }
    for method in operation.methods.iter().chain(&operation.not_methods) {
        if method.chars().any(|char| char.is_ascii_lowercase()) {
            let upper = method.to_ascii_uppercase();
            lines.push(format!(
                "the method {:?} is compared with case and never comes so; write {upper}",
                bounded(method)
            ));
        }
    }
    for path in operation.paths.iter().chain(&operation.not_paths) {
        let is_from_the_start = matches!(Wildcard::read(path), Wildcard::Exact(_) | Wildcard::Prefix(_));
        if is_from_the_start && !path.starts_with('/') {
            lines.push(format!("the path {:?} never matches: every path begins with a slash", bounded(path)));
        }
    }
    for host in operation.hosts.iter().chain(&operation.not_hosts) {
        if host.contains('/') {
            lines.push(format!(
                "the host {:?} never matches: it is a name, with a port where there is one",
                bounded(host)
            ));
        }
    }
}

fn condition(condition: &wire::Condition, lines: &mut Vec<String>) {
    let wire::Condition { key, values, not_values, .. } = condition;
    contradiction(key, values, not_values, lines);
    if key == "source.principal" {
        values.iter().chain(not_values).for_each(|text| principal(text, lines));
    }
    let has_stars =
        !matches!(key.as_str(), "source.namespace" | "source.ip" | "remote.ip" | "destination.ip");
    if has_stars {
        values.iter().chain(not_values).for_each(|value| inner_star(key, value, lines));
    }
}

fn contradiction(name: &str, values: &[String], not_values: &[String], lines: &mut Vec<String>) {
    let is_excluded = |value: &String| {
        not_values.iter().any(|not| {
            not == value || (!not.contains('{') && Wildcard::read(not).covers(Wildcard::read(value)))
        })
    };
    if !values.is_empty() && values.iter().all(is_excluded) {
        lines.push(format!("the rule never matches: all that {name} names is excluded beside it"));
    }
}

// `/a/*/b`, `*a*`: a star that is no wildcard.
fn inner_star(name: &str, value: &str, lines: &mut Vec<String>) {
    let wildcard = Wildcard::read(value);
    if !wildcard.literal().contains('*') {
        return;
    }
    let value = bounded(value);
    let means = match wildcard {
        Wildcard::Suffix(text) => format!("it matches what ends with {text:?}"),
        Wildcard::Prefix(text) => format!("it matches what begins with {text:?}"),
        Wildcard::Exact(_) | Wildcard::Presence => "it matches only itself".to_owned(),
    };
    let hint = if name == "paths" { "; {*} stands for a segment, {**} for several" } else { "" };
    lines.push(format!("{name} {value:?}: only a first or a last star is a wildcard, {means}{hint}"));
}

// What needs HTTP is dropped where there is none; a rule of nothing else then holds for every connection.
fn opaque(action: wire::Action, rule: &wire::Rule, lines: &mut Vec<String>) {
    let holds = match action {
        wire::Action::Deny => "denies every connection",
        wire::Action::Custom => "asks its provider about every connection",
        wire::Action::Allow | wire::Action::Audit => return,
    };
    let source = |source: &wire::Source| {
        let lists = [
            &source.principals,
            &source.not_principals,
            &source.namespaces,
            &source.not_namespaces,
            &source.service_accounts,
            &source.not_service_accounts,
            &source.trust_domains,
            &source.not_trust_domains,
            &source.ip_blocks,
            &source.not_ip_blocks,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
        ];
        lists.iter().all(|list| list.is_empty())
    };
    let operation =
        |operation: &wire::Operation| operation.ports.is_empty() && operation.not_ports.is_empty();
    let condition = |condition: &wire::Condition| {
        condition.key.starts_with("request.") || condition.key.starts_with("experimental.")
    };
    let is_wide = |is_empty: bool, any: bool| is_empty || any;
    let is_any = rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty();
    let is_opaque = is_wide(rule.from.is_empty(), rule.from.iter().any(source))
        && is_wide(rule.to.is_empty(), rule.to.iter().any(operation))
        && rule.when.iter().all(condition);
    if is_opaque && !is_any {
        lines.push(format!(
            "on a TCP port the rule {holds}: all of its fields need HTTP and are dropped there; add ports"
        ));
    }
}
