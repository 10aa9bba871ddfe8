//! Why something was denied: the first field that did not match of the nearest rule, in the operator's words.
//!
//! Runs only after a decision, with the same clauses that decided. The words of a single field are in `words`.

use http::StatusCode;

use super::{
    book::Book,
    clause::Clause,
    denial::{Denial, DenialKind},
    matcher::Effect,
    provider::Provider,
    rule::{Rule, Standing},
    words,
};
use crate::facts::Facts;

/// Of more rules than this, only so many are looked at to find the nearest: an explanation costs no more than it must.
const MOST_RULES: usize = 100;

/// A DENY rule matched: which, and by what.
pub(super) fn denied_by(rule: &Rule, facts: &Facts) -> Denial {
    let held: Vec<String> =
        rule.matching(facts, Effect::Deny).map(|clause| words::matched(clause, facts)).collect();
    let why = match (&rule.standing, held.is_empty()) {
        (Standing::Sound, true) if rule.needs_http => {
            "it denies by HTTP fields, which an opaque stream does not show".to_owned()
        }
        (Standing::Sound, true) => "it denies everything".to_owned(),
        (Standing::Sound, false) => format!("it denies, since {}", held.join(" and ")),
        (Standing::Void(why) | Standing::Widened(why), true) => why.clone(),
        (Standing::Void(why) | Standing::Widened(why), false) => {
            format!("it denies, since {}; {why}", held.join(" and "))
        }
    };
    of_rule(rule, DenialKind::Denied, &why)
}

/// A CUSTOM rule matched, and nobody of its provider's name is known.
pub(super) fn undefined_authorizer(rule: &Rule, name: &str) -> Denial {
    let kind = DenialKind::AuthorizerFailed { provider: name.to_owned(), status: StatusCode::FORBIDDEN };
    let name = words::foreign(name);
    of_rule(rule, kind, &format!("the mesh defines no extension provider {name:?} that could be asked"))
}

/// A CUSTOM rule matched, and its authorizer said no.
pub(super) fn authorizer_denied(rule: &Rule, name: &str) -> Denial {
    let kind = DenialKind::Authorizer { provider: name.to_owned() };
    of_rule(rule, kind, &format!("the external authorizer {name} refuses it"))
}

/// A CUSTOM rule matched, and its authorizer could not be asked.
pub(super) fn authorizer_failed(rule: &Rule, provider: &Provider, why: &str) -> Denial {
    let (name, status) = (&provider.name, provider.status_on_error);
    let kind = DenialKind::AuthorizerFailed { provider: name.clone(), status };
    of_rule(rule, kind, &format!("the external authorizer {name} failed: {}", words::foreign(why)))
}

/// No ALLOW rule matched: the nearest one, and its first field that did not.
pub(super) fn not_allowed(allow: &Book, facts: &Facts) -> Denial {
    match (nearest(allow, facts), allow.policies.first()) {
        (Some((rule, miss)), _) => of_rule(rule, DenialKind::Denied, &miss.why(rule, facts, Effect::Allow)),
        (None, Some(policy)) => Denial {
            policy: Some(policy.to_string()),
            ..Denial::without_policy(format!("policy {policy}: it has no rules, so that it allows nothing"))
        },
        (None, None) => Denial::without_policy("no policy allows it"),
    }
}

/// The ALLOW rule that came farthest, and what stopped it. Of many rules it looks at those that could hold, and at some of
/// the others.
pub(super) fn nearest<'a>(allow: &'a Book, facts: &Facts) -> Option<(&'a Rule, Miss<'a>)> {
    let candidates =
        if allow.rules.len() > MOST_RULES { allow.candidates(facts, MOST_RULES) } else { Vec::new() };
    let others = allow.rules.iter().enumerate().take(MOST_RULES);
    let misses =
        candidates.into_iter().chain(others).map(|(at, rule)| (at, rule, miss(rule, facts, Effect::Allow)));
    // The first of those that came farthest.
    let best = misses.reduce(|best, next| {
        let order = next.2.reached.cmp(&best.2.reached).then(best.0.cmp(&next.0));
        if order.is_gt() { next } else { best }
    });
    best.map(|(_, rule, miss)| (rule, miss))
}

fn of_rule(rule: &Rule, kind: DenialKind, why: &str) -> Denial {
    let (policy, number) = (&rule.policy, rule.number);
    let reason = format!("policy {policy} rule {number}: {why}");
    Denial { kind, policy: Some(policy.to_string()), rule: Some(number), reason }
}

/// How far a rule matched, and what stopped it.
pub(super) struct Miss<'a> {
    /// Sections that matched, then fields of the section that did not.
    reached: (usize, usize),
    /// `None` where nothing else than its being void or HTTP stops it.
    clause: Option<&'a Clause>,
}

impl Miss<'_> {
    pub(super) fn why(&self, rule: &Rule, facts: &Facts, effect: Effect) -> String {
        match (&rule.standing, self.clause) {
            (Standing::Void(why), _) => why.clone(),
            (_, Some(clause)) => words::missed(clause, facts, effect),
            (_, None) => "it looks at HTTP, and this is an opaque stream".to_owned(),
        }
    }
}

/// How far the rule matched, and what stopped it.
pub(super) fn miss<'a>(rule: &'a Rule, facts: &Facts, effect: Effect) -> Miss<'a> {
    if rule.is_void() {
        return Miss { reached: (0, 0), clause: None };
    }
    let when = if rule.when.is_empty() { &[][..] } else { std::slice::from_ref(&rule.when) };
    for (section, entries) in [&rule.from[..], &rule.to[..], when].into_iter().enumerate() {
        // Of the alternatives, the first that came farthest.
        let mut farthest: Option<(usize, &Clause)> = None;
        let mut holds = entries.is_empty();
        for clauses in entries {
            let stop = clauses.iter().enumerate().find(|(_, clause)| !clause.holds(facts, effect));
            match stop {
                None => holds = true,
                Some((at, clause)) if farthest.is_none_or(|(best, _)| at > best) => {
                    farthest = Some((at, clause));
                }
                Some(_) => {}
            }
        }
        if let Some((at, clause)) = farthest.filter(|_| !holds) {
            return Miss { reached: (section, at), clause: Some(clause) };
        }
    }
    Miss { reached: (3, 0), clause: None }
}
