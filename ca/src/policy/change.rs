//! The smallest change of the law that gives the other verdict: what to add, ready to paste.
//!
//! Each change is tried on the engine before it is told. It is as narrow as the question: this caller, this method, this
//! path; widening it is its reader's decision.

use douane_proto::{law::Governing, mtls::MtlsMode, resource::Resource, wire};
use serde::Serialize;

use crate::policy::{
    asked::{Asked, Mesh, SOMEWHERE, Verdict},
    destination::Destination,
    examine,
    receiver::{Judgement, Receiver},
    written,
};

/// A connection may have to pass mutual TLS and a few DENY policies; more changes are no help.
const MAX_STEPS: usize = 8;

/// Something to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What to do.
    pub what: String,
    /// What to add, or to write instead.
    pub yaml: String,
}

/// What a change is made to.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Where policies were written.
    pub resources: &'a [Resource],
    /// The law of the workload.
    pub governing: &'a Governing,
    /// The settings of the mesh.
    pub mesh: &'a Mesh,
    /// Who is asked.
    pub destination: &'a Destination,
}

/// All changes that are needed together; none where policies alone cannot change the verdict.
#[must_use]
pub fn find(situation: Situation<'_>, asked: &Asked, now: u64) -> Vec<Change> {
    let mut governing = situation.governing.clone();
    let Some(before) = judge(situation, &governing, asked, now) else { return Vec::new() };
    let (mut changes, mut judgement) = (Vec::new(), before.clone());
    for _step in 0..MAX_STEPS {
        let Some(change) = next(situation, &mut governing, &judgement, asked, now) else { break };
        changes.push(change);
        let Some(after) = judge(situation, &governing, asked, now) else { break };
        let is_other = (after.verdict == Verdict::Allow) != (before.verdict == Verdict::Allow);
        if is_other {
            return changes;
        }
        if after == judgement {
            break;
        }
        judgement = after;
    }
    Vec::new()
}

fn judge(situation: Situation<'_>, governing: &Governing, asked: &Asked, now: u64) -> Option<Judgement> {
    Some(Receiver::new(governing, situation.mesh).ok()?.judge(asked, now))
}

// The next thing that stands in the way.
fn next(
    situation: Situation<'_>,
    governing: &mut Governing,
    judgement: &Judgement,
    asked: &Asked,
    now: u64,
) -> Option<Change> {
    let Situation { destination, .. } = situation;
    match judgement.verdict {
        // A faulty request and a bad token are not the policies' matter.
        Verdict::BadRequest | Verdict::Unauthorized => None,
        Verdict::Allow => {
            let rule = narrow_rule(situation, governing, asked, now)?;
            let policy = new_policy(destination, asked, wire::Action::Deny, rule);
            let yaml = written::policy(&policy, &written::lasting(&destination.workload.labels), &[]);
            governing.policies.policies.push(policy);
            Some(Change { what: "To forbid it, add this policy:".to_owned(), yaml })
        }
        Verdict::Deny => {
            let port = asked.destination.port();
            if !is_admitted(governing, asked) {
                governing.mtls.ports.insert(port, MtlsMode::Permissive);
                return Some(admit(destination, port));
            }
            match responsible(governing, judgement) {
                Some(index) if acts(governing, index, wire::Action::Deny) => {
                    exclude(situation, governing, index, judgement.rule?, asked)
                }
                Some(index) if acts(governing, index, wire::Action::Custom) => None,
                nearest => {
                    let rule = narrow_rule(situation, governing, asked, now)?;
                    Some(allow(situation, governing, nearest, rule, asked))
                }
            }
        }
    }
}

fn is_admitted(governing: &Governing, asked: &Asked) -> bool {
    use douane_proto::mtls::Proof;
    let proof = if asked.peer.is_some() { Proof::Certificate } else { Proof::Plaintext };
    governing.mtls.of(asked.destination.port()).admits(proof)
}

fn admit(destination: &Destination, port: u16) -> Change {
    let workload = &destination.workload;
    let name = format!("{}-{port}", workload.service_account);
    let yaml = written::peer_authentication(
        &workload.namespace,
        &name,
        &written::lasting(&workload.labels),
        port,
        "PERMISSIVE",
    );
    Change {
        what:
            "To admit it while the peer is being migrated (plaintext is then taken from everybody), add this:"
                .to_owned(),
        yaml,
    }
}

// The policy that a judgement names, in the law.
fn responsible(governing: &Governing, judgement: &Judgement) -> Option<usize> {
    let key = judgement.policy.as_ref()?;
    let policies = &governing.policies.policies;
    policies.iter().position(|policy| format!("{}/{}", policy.namespace, policy.name) == *key)
}

fn acts(governing: &Governing, index: usize, action: wire::Action) -> bool {
    governing.policies.policies.get(index).is_some_and(|policy| policy.action() == action)
}

// Adds the caller to those whom the rule does not mean.
fn exclude(
    situation: Situation<'_>,
    governing: &mut Governing,
    index: usize,
    number: usize,
    asked: &Asked,
) -> Option<Change> {
    let policy = governing.policies.policies.get_mut(index)?;
    let key = format!("{}/{}", policy.namespace, policy.name);
    let rule = policy.rules.get_mut(number.checked_sub(1)?)?;
    if rule.from.is_empty() {
        rule.from.push(wire::Source::default());
    }
    for source in &mut rule.from {
        match &asked.peer {
            Some(peer) if !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty() => {
                source.not_service_accounts.push(format!("{}/{}", peer.namespace(), peer.service_account()));
            }
            Some(peer) => source.not_principals.push(peer.principal()),
            None => source.not_ip_blocks.push(asked.source.to_string()),
        }
    }
    let place = place(situation, &key, Some(number));
    let what = format!("To except this caller, write rule {number} of policy {key}{place} so:");
    Some(Change { what, yaml: written::rule(rule) })
}

// To the nearest policy where it is the workload's own, else as a policy of its own.
fn allow(
    situation: Situation<'_>,
    governing: &mut Governing,
    nearest: Option<usize>,
    rule: wire::Rule,
    asked: &Asked,
) -> Change {
    let destination = situation.destination;
    let policies = &mut governing.policies.policies;
    let own = nearest.and_then(|index| policies.get_mut(index)).filter(|policy| {
        policy.namespace == destination.workload.namespace
            && policy.unreadable.is_empty()
            && !policy.rules.is_empty()
    });
    if let Some(policy) = own {
        let key = format!("{}/{}", policy.namespace, policy.name);
        let yaml = written::rule(&rule);
        policy.rules.push(rule);
        let place = place(situation, &key, None);
        return Change {
            what: format!("To allow it, add this rule to policy {key}{place}{}:", stand_in(asked)),
            yaml,
        };
    }
    let policy = new_policy(destination, asked, wire::Action::Allow, rule);
    let yaml = written::policy(&policy, &written::lasting(&destination.workload.labels), &[]);
    policies.push(policy);
    Change { what: format!("To allow it, add this policy{}:", stand_in(asked)), yaml }
}

// Without an identity there is only the address, and the question may not say it.
fn stand_in(asked: &Asked) -> String {
    if asked.peer.is_some() || asked.source != SOMEWHERE {
        return String::new();
    }
    format!(" (with the peer's address instead of {SOMEWHERE}; --source-ip says it)")
}

fn place(situation: Situation<'_>, policy: &str, rule: Option<usize>) -> String {
    let place = examine::place(situation.resources, policy, rule);
    place.map(|place| format!(" ({place})")).unwrap_or_default()
}

fn new_policy(
    destination: &Destination,
    asked: &Asked,
    action: wire::Action,
    rule: wire::Rule,
) -> wire::Policy {
    let workload = &destination.workload;
    let verb = if action == wire::Action::Deny { "deny" } else { "allow" };
    let caller = asked.peer.as_ref().map_or("plaintext", |peer| peer.service_account());
    wire::Policy {
        namespace: workload.namespace.clone(),
        name: format!("{verb}-{caller}-to-{}", workload.service_account),
        action: action.into(),
        rules: vec![rule],
        ..wire::Policy::default()
    }
}

// A rule that holds for this and for as little else as possible.
fn narrow_rule(
    situation: Situation<'_>,
    governing: &Governing,
    asked: &Asked,
    now: u64,
) -> Option<wire::Rule> {
    let facts = Receiver::new(governing, situation.mesh).ok()?.facts(asked, now).ok()?;
    let source = match &asked.peer {
        Some(peer) => wire::Source { principals: vec![peer.principal()], ..wire::Source::default() },
        None => wire::Source { ip_blocks: vec![asked.source.to_string()], ..wire::Source::default() },
    };
    let operation = match &facts.request {
        Some(request) => {
            let path = &request.target.path;
            let is_literal = path.starts_with('/') && !path.contains(['*', '{', '}']);
            wire::Operation {
                methods: vec![request.method.to_string()],
                paths: is_literal.then(|| path.clone()).into_iter().collect(),
                ..wire::Operation::default()
            }
        }
        None => wire::Operation {
            ports: vec![asked.destination.port().to_string()],
            ..wire::Operation::default()
        },
    };
    Some(wire::Rule { from: vec![source], to: vec![operation], ..wire::Rule::default() })
}
