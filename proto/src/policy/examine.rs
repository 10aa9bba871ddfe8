//! What each rule makes of a request, and which rules do not do what they say on a port: for tools and for an operator's
//! status. Knows nothing that a decision does not know; it decides nothing.

use std::{collections::HashSet, sync::Arc};

use super::{
    book::Book,
    explain,
    matcher::Effect,
    rule::{Rule, Standing},
    set::PolicySet,
    words,
};
use crate::{facts::Facts, mesh::Protocol, wire::Action};

/// What a rule makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// `namespace/name`.
    pub policy: Arc<str>,
    /// What the policy does where a rule of it holds.
    pub action: Action,
    /// It is decided for the record only.
    pub dry_run: bool,
    /// Which rule, counted from 1; `None` of a policy without rules.
    pub rule: Option<usize>,
    /// What it makes of it.
    pub finding: Finding,
    /// Why the rule is wider than it was written; `None` where it is not.
    pub widened: Option<String>,
}

/// What a rule makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It holds, and by what; nothing where it always does.
    Holds(Vec<String>),
    /// It does not: the first field that fails.
    Fails(String),
    /// It never holds, and why.
    Void(String),
}

/// A rule that does not do what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubtful {
    /// `namespace/name`.
    pub policy: Arc<str>,
    /// Which rule, counted from 1.
    pub rule: usize,
    /// Does it hold for less or for more?
    pub standing: DoubtfulStanding,
    /// Why.
    pub why: String,
}

/// In which way a rule does not do what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtfulStanding {
    /// It allows nothing.
    Void,
    /// It holds for more than was written.
    Widened,
}

/// What every rule makes of it, kind by kind in the order in which they are asked; policies without rules come last of
/// their kind.
#[must_use]
pub fn examine(policies: &PolicySet, facts: &Facts) -> Vec<Examined> {
    let mut examined = Vec::new();
    for (action, dry_run, book) in policies.books() {
        let entry = |policy: &Arc<str>, rule, finding, widened| {
            let policy = Arc::clone(policy);
            Examined { policy, action, dry_run, rule, finding, widened }
        };
        examined.extend(book.rules.iter().map(|rule| {
            let widened = match &rule.standing {
                Standing::Widened(why) => Some(why.clone()),
                Standing::Sound | Standing::Void(_) => None,
            };
            entry(&rule.policy, Some(rule.number), finding(rule, facts, book.effect), widened)
        }));
        let with_rules: HashSet<&Arc<str>> = book.rules.iter().map(|rule| &rule.policy).collect();
        let empty = book.policies.iter().filter(|policy| !with_rules.contains(policy));
        let why = || Finding::Void("it has no rules".to_owned());
        examined.extend(empty.map(|policy| entry(policy, None, why(), None)));
    }
    examined
}

/// The rules that are void or wider than written on a port of this protocol. On a port whose protocol nobody declared,
/// opaque streams may come.
#[must_use]
pub fn doubtful(policies: &PolicySet, port: u16, protocol: Protocol) -> Vec<Doubtful> {
    let opaque = match protocol {
        Protocol::Undeclared | Protocol::Tcp => Opaque::MayCome,
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => Opaque::NeverComes,
    };
    let of_book = |book: &Book| {
        let effect = book.effect;
        let rules = book.rules.iter().filter(|rule| rule.may_hold_on(port));
        rules.filter_map(|rule| doubt(rule, effect, opaque)).collect::<Vec<_>>()
    };
    policies.books().flat_map(|(_, _, book)| of_book(book)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opaque {
    MayCome,
    NeverComes,
}

fn finding(rule: &Rule, facts: &Facts, effect: Effect) -> Finding {
    if let Standing::Void(why) = &rule.standing {
        return Finding::Void(why.clone());
    }
    if rule.matches(facts, effect) {
        return Finding::Holds(
            rule.matching(facts, effect).map(|clause| words::matched(clause, facts)).collect(),
        );
    }
    Finding::Fails(explain::miss(rule, facts, effect).why(rule, facts, effect))
}

fn doubt(rule: &Rule, effect: Effect, opaque: Opaque) -> Option<Doubtful> {
    let doubtful = |standing, why: String| {
        Some(Doubtful { policy: Arc::clone(&rule.policy), rule: rule.number, standing, why })
    };
    match (&rule.standing, effect) {
        (Standing::Void(why), _) => doubtful(DoubtfulStanding::Void, why.clone()),
        (Standing::Widened(why), _) => doubtful(DoubtfulStanding::Widened, why.clone()),
        (Standing::Sound, _) if opaque == Opaque::NeverComes || !rule.needs_http => None,
        (Standing::Sound, Effect::Allow) => {
            let why = format!("it looks at {}, which an opaque stream does not show", http_fields(rule));
            doubtful(DoubtfulStanding::Void, why)
        }
        (Standing::Sound, Effect::Deny) => {
            let why = format!("of an opaque stream it does not see {}", http_fields(rule));
            doubtful(DoubtfulStanding::Widened, why)
        }
    }
}

fn http_fields(rule: &Rule) -> String {
    let mut fields: Vec<String> =
        rule.attributes().filter(|attribute| attribute.is_http()).map(words::noun).collect();
    fields.dedup();
    fields.join(", ")
}
