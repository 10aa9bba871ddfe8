//! Why something was denied: the first field that did not match of the nearest rule, in the operator's words.
//!
//! Runs only after a decision, with the same clauses that decided. Header values are never repeated: they may be secret.

use std::fmt;

use super::{
    clause::{Attribute, Clause, Effect, Values},
    rule::{Compiled, Rule},
    set::PolicySet,
};
use crate::facts::Facts;

/// A reason names this many values of a list, then how many more there are.
const NAMED_VALUES: usize = 4;
/// Longer texts of a request are cut.
const MAX_CHARS: usize = 120;

/// Why something was denied, in the operator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `namespace/name` of the policy that denied it, or of the nearest ALLOW policy that did not match.
    pub policy: Option<String>,
    /// Which of its rules, counted from 1.
    pub rule: Option<usize>,
    /// The first field that did not match (or, of a DENY rule, that it matched), for a human; names policy and rule.
    pub reason: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A DENY rule matched: which, and by what.
pub(super) fn denied_by(policy: &Compiled, index: usize, rule: &Rule, facts: &Facts) -> Denial {
    let held: Vec<String> = rule.matching(facts).map(|clause| matched(clause, facts)).collect();
    let why = match (&rule.doubt, held.is_empty()) {
        (Some(doubt), _) => doubt.clone(),
        (None, true) if rule.needs_http => {
            "it denies by HTTP fields, which an opaque stream does not show".to_owned()
        }
        (None, true) => "it denies everything".to_owned(),
        (None, false) => format!("it denies, since {}", held.join(" and ")),
    };
    denial(policy, Some(index), &why)
}

/// No ALLOW rule matched: the nearest one, and its first field that did not.
pub(super) fn not_allowed(policies: &PolicySet, facts: &Facts) -> Denial {
    let rules = policies.allow.iter().flat_map(|policy| {
        policy.rules.iter().enumerate().map(move |(index, rule)| (policy, index, nearest(rule, facts)))
    });
    // The first of those that came farthest.
    let best = rules.reduce(|best, next| if next.2.reached > best.2.reached { next } else { best });
    if let Some((policy, index, miss)) = best {
        return denial(policy, Some(index), &miss.why);
    }
    match policies.allow.first() {
        Some(policy) => denial(policy, None, "it has no rules, so that it allows nothing"),
        None => Denial { policy: None, rule: None, reason: "no policy allows it".to_owned() },
    }
}

fn denial(policy: &Compiled, index: Option<usize>, why: &str) -> Denial {
    let key = &policy.key;
    let rule = index.map(|index| index + 1);
    let reason = match rule {
        Some(rule) => format!("policy {key} rule {rule}: {why}"),
        None => format!("policy {key}: {why}"),
    };
    Denial { policy: Some(key.to_string()), rule, reason }
}

// How far a rule matched, and what stopped it.
struct Miss {
    /// Sections that matched, then fields of the section that did not.
    reached: (usize, usize),
    why: String,
}

fn nearest(rule: &Rule, facts: &Facts) -> Miss {
    if let Some(doubt) = &rule.doubt {
        return Miss { reached: (0, 0), why: doubt.clone() };
    }
    let when = if rule.when.is_empty() { &[][..] } else { std::slice::from_ref(&rule.when) };
    for (section, entries) in [&rule.from[..], &rule.to[..], when].into_iter().enumerate() {
        // Of the alternatives, the one that came farthest.
        let misses = entries.iter().map(|clauses| {
            clauses.iter().position(|clause| !clause.holds(facts, Effect::Allow)).map(|at| (at, clauses))
        });
        let Some(misses) = misses.collect::<Option<Vec<_>>>() else { continue };
        let farthest = misses.into_iter().reduce(|best, next| if next.0 > best.0 { next } else { best });
        if let Some((at, clauses)) = farthest
            && let Some(clause) = clauses.get(at)
        {
            let opaque = clause.attribute.is_http() && facts.request.is_none();
            let why = if opaque { opaque_words(clause) } else { missed(clause, facts) };
            return Miss { reached: (section, at), why };
        }
    }
    let why = "it looks at HTTP, and this is an opaque stream".to_owned();
    Miss { reached: (3, 0), why }
}

fn opaque_words(clause: &Clause) -> String {
    format!("it asks for a {}, and this is an opaque stream", noun(&clause.attribute))
}

fn missed(clause: &Clause, facts: &Facts) -> String {
    let (noun, value) = (noun(&clause.attribute), value(&clause.attribute, facts));
    let negative_hit = clause.any_of.is_empty()
        || Clause { none_of: Values::default(), ..clause.clone() }.holds(facts, Effect::Allow);
    match (value, negative_hit) {
        (None, false) => format!("there is no {noun}, it must be in {}", listed(&clause.any_of)),
        (Some(value), false) => format!("{noun} {value} is not in {}", listed(&clause.any_of)),
        (value, true) => {
            format!("{noun} {} is excluded by {}", value.unwrap_or_default(), listed(&clause.none_of))
        }
    }
}

fn matched(clause: &Clause, facts: &Facts) -> String {
    let noun = noun(&clause.attribute);
    match (value(&clause.attribute, facts), clause.any_of.is_empty()) {
        (Some(value), false) => format!("{noun} {value} is in {}", listed(&clause.any_of)),
        (Some(value), true) => format!("{noun} {value} is not in {}", listed(&clause.none_of)),
        (None, _) => format!("there is no {noun}"),
    }
}

fn noun(attribute: &Attribute) -> String {
    let noun = match attribute {
        Attribute::Principal => "principal",
        Attribute::Namespace => "namespace",
        Attribute::ServiceAccount => "service account",
        Attribute::TrustDomain => "trust domain",
        Attribute::SourceIp => "source address",
        Attribute::DestinationIp => "destination address",
        Attribute::DestinationPort => "port",
        Attribute::Host => "host",
        Attribute::Method => "method",
        Attribute::Path => "path",
        Attribute::Sni => "server name",
        Attribute::Header(name) => return format!("header {name}"),
    };
    noun.to_owned()
}

// What the request has there; texts that a stranger chose are cut, and escaped so that they cannot forge a log line.
fn value(attribute: &Attribute, facts: &Facts) -> Option<String> {
    let peer = facts.peer.as_ref();
    let request = facts.request.as_ref();
    match attribute {
        Attribute::Principal => peer.map(crate::id::WorkloadId::principal),
        Attribute::Namespace => peer.map(|peer| peer.namespace().to_owned()),
        Attribute::ServiceAccount => {
            peer.map(|peer| format!("{}/{}", peer.namespace(), peer.service_account()))
        }
        Attribute::TrustDomain => peer.map(|peer| peer.trust_domain().to_string()),
        Attribute::SourceIp => Some(facts.source.to_canonical().to_string()),
        Attribute::DestinationIp => Some(facts.destination.ip().to_canonical().to_string()),
        Attribute::DestinationPort => Some(facts.destination.port().to_string()),
        Attribute::Sni => facts.sni.as_deref().map(foreign),
        Attribute::Host => request.map(|request| foreign(&request.target.authority)),
        Attribute::Method => request.map(|request| foreign(request.method.as_str())),
        Attribute::Path => request.map(|request| foreign(&request.target.path)),
        Attribute::Header(name) => request
            .filter(|request| request.headers.contains_key(name))
            .map(|_| "(value withheld)".to_owned()),
    }
}

fn foreign(text: &str) -> String {
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
