//! Rules that can never hold, since they demand two things of one attribute that no value meets: a `when` and another one,
//! a `when` and a field, addresses and their exceptions. What is not sure is not told.

use douane_proto::{wire, yaml::bounded};
use ipnet::IpNet;

use super::wildcard::Wildcard;

/// Attributes of which a request has one value at most, on every port.
const SINGLE: &[&str] = &[
    "source.namespace",
    "source.principal",
    "source.ip",
    "remote.ip",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

/// Says why, where a rule never holds.
pub(super) fn holds(rule: &wire::Rule) -> Option<String> {
    let clash = conditions(rule).or_else(|| sources(rule)).or_else(|| operations(rule))?;
    Some(format!("the rule never matches: {clash}"))
}

// All of `when` must hold.
fn conditions(rule: &wire::Rule) -> Option<String> {
    let demands = || rule.when.iter().filter(|when| SINGLE.contains(&when.key.as_str()));
    for (index, one) in demands().enumerate() {
        let other = demands()
            .skip(index + 1)
            .find(|other| one.key == other.key && are_apart(&one.key, &one.values, &other.values));
        if other.is_some() {
            return Some(format!("two conditions on {} have no value in common", bounded(&one.key)));
        }
    }
    None
}

// One of `from` suffices.
fn sources(rule: &wire::Rule) -> Option<String> {
    let clashes = rule.from.iter().map(|source| clash_of_source(source, rule));
    every(clashes.collect())
}

fn clash_of_source(source: &wire::Source, rule: &wire::Rule) -> Option<String> {
    let fields = [
        ("namespaces", "source.namespace", &source.namespaces),
        ("principals", "source.principal", &source.principals),
        ("ipBlocks", "source.ip", &source.ip_blocks),
        ("remoteIpBlocks", "remote.ip", &source.remote_ip_blocks),
    ];
    let against_when = fields.into_iter().find_map(|(name, key, values)| against(name, key, values, rule));
    let exceptions = [
        ("ipBlocks", &source.ip_blocks, &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks, &source.not_remote_ip_blocks),
    ];
    against_when.or_else(|| {
        let (name, ..) = exceptions.into_iter().find(|(_, nets, not)| are_within(nets, not))?;
        Some(format!("all that {name} names is excluded beside it"))
    })
}

// One of `to` suffices.
fn operations(rule: &wire::Rule) -> Option<String> {
    let clashes = rule.to.iter().map(|to| against("ports", "destination.port", &to.ports, rule));
    every(clashes.collect())
}

fn against(name: &str, key: &str, values: &[String], rule: &wire::Rule) -> Option<String> {
    let clash = rule.when.iter().any(|when| when.key == key && are_apart(key, values, &when.values));
    clash.then(|| format!("{name} and the condition on {key} have no value in common"))
}

fn every(clashes: Vec<Option<String>>) -> Option<String> {
    clashes.into_iter().collect::<Option<Vec<_>>>()?.into_iter().next()
}

fn are_apart(key: &str, one: &[String], other: &[String]) -> bool {
    let apart = |one: &String| other.iter().all(|other| is_apart(key, one, other));
    !one.is_empty() && !other.is_empty() && one.iter().all(apart)
}

fn is_apart(key: &str, one: &str, other: &str) -> bool {
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => match (net(one), net(other)) {
            (Some(one), Some(other)) => !one.contains(&other) && !other.contains(&one),
            _ => false,
        },
        // Its star may stand anywhere.
        "source.namespace" => one != other && !one.contains('*') && !other.contains('*'),
        "source.principal" => are_texts_apart(without_domain(one), without_domain(other)),
        _ => are_texts_apart(one, other),
    }
}

fn are_texts_apart(one: &str, other: &str) -> bool {
    match (Wildcard::read(one), Wildcard::read(other)) {
        (Wildcard::Exact(one), Wildcard::Exact(other)) => one != other,
        (Wildcard::Prefix(one), Wildcard::Prefix(other)) => {
            !one.starts_with(other) && !other.starts_with(one)
        }
        (Wildcard::Suffix(one), Wildcard::Suffix(other)) => !one.ends_with(other) && !other.ends_with(one),
        (Wildcard::Exact(exact), Wildcard::Prefix(prefix))
        | (Wildcard::Prefix(prefix), Wildcard::Exact(exact)) => !exact.starts_with(prefix),
        (Wildcard::Exact(exact), Wildcard::Suffix(suffix))
        | (Wildcard::Suffix(suffix), Wildcard::Exact(exact)) => !exact.ends_with(suffix),
        _ => false,
    }
}

// Two names of one trust domain may be meant.
fn without_domain(principal: &str) -> &str {
    let unknown = if principal.starts_with('*') { principal } else { "*" };
    principal.find("/ns/").and_then(|at| principal.get(at..)).unwrap_or(unknown)
}

// Is every address of these one of those?
fn are_within(nets: &[String], others: &[String]) -> bool {
    let is_within = |own: &String| {
        others
            .iter()
            .any(|other| matches!((net(own), net(other)), (Some(own), Some(other)) if other.contains(&own)))
    };
    !nets.is_empty() && nets.iter().all(is_within)
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}
