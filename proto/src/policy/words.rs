//! A field of a rule, and what a request has there, in the operator's words. Header values, claims and queries are never
//! repeated: they may be secret.

use super::{
    attribute::Attribute,
    clause::Clause,
    matcher::{Effect, Values},
    token,
};
use crate::{facts::Facts, id::WorkloadId};

/// A reason names this many values of a list, then how many more there are.
const NAMED_VALUES: usize = 4;
/// Longer texts of a request are cut.
const MAX_CHARS: usize = 120;

/// Why the field does not hold.
pub(super) fn missed(clause: &Clause, facts: &Facts, effect: Effect) -> String {
    if clause.attribute.is_http() && facts.request.is_none() {
        return format!("it asks for a {}, and this is an opaque stream", noun(&clause.attribute));
    }
    let (noun, value) = (noun(&clause.attribute), value(&clause.attribute, facts));
    let negative_hit = clause.any_of.is_empty() || clause.holds_positively(facts, effect);
    match (value, negative_hit) {
        (None, false) => format!("there is no {noun}, it must be in {}", listed(&clause.any_of)),
        (Some(value), false) => format!("{noun} {value} is not in {}", listed(&clause.any_of)),
        (value, true) => {
            format!("{noun} {} is excluded by {}", value.unwrap_or_default(), listed(&clause.none_of))
        }
    }
}

/// Why the field holds.
pub(super) fn matched(clause: &Clause, facts: &Facts) -> String {
    let noun = noun(&clause.attribute);
    match (value(&clause.attribute, facts), clause.any_of.is_empty()) {
        (Some(value), false) => format!("{noun} {value} is in {}", listed(&clause.any_of)),
        (Some(value), true) => format!("{noun} {value} is not in {}", listed(&clause.none_of)),
        (None, _) => format!("there is no {noun}"),
    }
}

/// What the field looks at.
pub(super) fn noun(attribute: &Attribute) -> String {
    let noun = match attribute {
        Attribute::Principal => "principal",
        Attribute::Namespace => "namespace",
        Attribute::ServiceAccount => "service account",
        Attribute::TrustDomain => "trust domain",
        Attribute::SourceIp => "source address",
        Attribute::RemoteIp => "client address",
        Attribute::DestinationIp => "destination address",
        Attribute::DestinationPort => "port",
        Attribute::Host => "host",
        Attribute::Method => "method",
        Attribute::Path => "path",
        Attribute::PathAndQuery => "path with query",
        Attribute::Sni => "server name",
        Attribute::RequestPrincipal => "request principal",
        Attribute::Header(name) => return format!("header {name}"),
        Attribute::Claim(names) => return format!("claim {}", foreign(&names.join("."))),
    };
    noun.to_owned()
}

/// What the request has there; texts that a stranger chose are cut, and escaped so that they cannot forge a log line.
pub(super) fn value(attribute: &Attribute, facts: &Facts) -> Option<String> {
    const WITHHELD: &str = "(value withheld)";
    let peer = facts.peer.as_ref();
    let request = facts.request.as_ref();
    let token = request.and_then(|request| request.token.as_ref());
    match attribute {
        Attribute::Principal => peer.map(WorkloadId::principal),
        Attribute::Namespace => peer.map(|peer| peer.namespace().to_owned()),
        Attribute::ServiceAccount => {
            peer.map(|peer| format!("{}/{}", peer.namespace(), peer.service_account()))
        }
        Attribute::TrustDomain => peer.map(|peer| peer.trust_domain().to_string()),
        Attribute::SourceIp => Some(facts.source.to_canonical().to_string()),
        Attribute::RemoteIp => Some(facts.remote.to_canonical().to_string()),
        Attribute::DestinationIp => Some(facts.destination.ip().to_canonical().to_string()),
        Attribute::DestinationPort => Some(facts.destination.port().to_string()),
        Attribute::Sni => facts.sni.as_deref().map(foreign),
        Attribute::Host => request.map(|request| foreign(&request.target.authority)),
        Attribute::Method => request.map(|request| foreign(request.method.as_str())),
        Attribute::Path => request.map(|request| foreign(&request.target.path)),
        Attribute::PathAndQuery => request.map(|request| match request.target.query {
            Some(_) => format!("{}?(query withheld)", foreign(&request.target.path)),
            None => foreign(&request.target.path),
        }),
        Attribute::RequestPrincipal => {
            // Who the user is logs tell only as their operator configured.
            token
                .and_then(token::principal)
                .map(|(issuer, _)| format!("{}/(subject withheld)", foreign(issuer)))
        }
        Attribute::Header(name) => {
            request.filter(|request| request.headers.contains_key(name)).map(|_| WITHHELD.to_owned())
        }
        Attribute::Claim(names) => {
            token.and_then(|token| token::claim(token, names)).map(|_| WITHHELD.to_owned())
        }
    }
}

/// A text that somebody else wrote.
pub(super) fn foreign(text: &str) -> String {
    let cut: String = text.chars().take(MAX_CHARS).collect();
    cut.escape_debug().to_string()
}

fn listed(values: &Values) -> String {
    let named: Vec<String> = values.words.iter().take(NAMED_VALUES).map(|word| foreign(word)).collect();
    match values.words.len().saturating_sub(NAMED_VALUES) {
        0 => format!("[{}]", named.join(", ")),
        more => format!("[{}, and {more} more]", named.join(", ")),
    }
}
