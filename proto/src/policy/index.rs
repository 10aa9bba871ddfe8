//! Which rules could hold for a request, so that a decision costs as much as those, and not as much as all of them.
//!
//! Each rule is anchored by something that must be exactly so for it to hold: a peer, a namespace, the beginning of a path, a
//! host, a port… of the possible anchors the one that it shares with the fewest rules. What has no anchor is always looked
//! at. Keys are hashes: two that collide only make a rule be looked at in vain, so that a verdict never depends on the index.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::ControlFlow,
};

use super::{
    anchor::{self, Anchor, Class},
    clause::has_no_path,
    matcher::Effect,
    rule::Rule,
    token,
};
use crate::facts::{Facts, RequestFacts};

/// Which rules could hold, by position.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    anchored: HashMap<u64, Vec<u32>, BuildHasherDefault<Hashed>>,
    /// Lengths of the path prefixes among the anchors, in ascending order.
    prefixes: Vec<usize>,
    /// Rules without an anchor.
    any: Vec<u32>,
    /// Rules whose anchor only a request has. Where it is not seen, they could hold if they do not allow.
    by_request: Vec<u32>,
}

/// The keys are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Index {
    pub(super) fn of(rules: &[Rule], effect: Effect) -> Self {
        let anchors: Vec<Vec<Anchor>> = rules.iter().map(anchor::of_rule).collect();
        let mut shared: HashMap<u64, usize> = HashMap::new();
        for key in anchors.iter().flatten().flat_map(|anchor| &anchor.keys) {
            *shared.entry(key.hash).or_default() += 1;
        }
        let crowd = |anchor: &Anchor| {
            anchor.keys.iter().filter_map(|key| shared.get(&key.hash)).copied().max().unwrap_or_default()
        };
        let mut index = Self::default();
        for (at, (rule, anchors)) in rules.iter().zip(&anchors).enumerate() {
            // At most 4096 policies of 512 rules: each has its number.
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            if effect == Effect::Allow && rule.is_void() {
                continue;
            }
            match anchors.iter().min_by_key(|anchor| crowd(anchor)) {
                Some(anchor) => index.add(at, anchor),
                None => index.any.push(at),
            }
        }
        index.prefixes.sort_unstable();
        index.prefixes.dedup();
        index
    }

    fn add(&mut self, at: u32, anchor: &Anchor) {
        for key in &anchor.keys {
            let rules = self.anchored.entry(key.hash).or_default();
            if rules.last() != Some(&at) {
                rules.push(at);
            }
            self.prefixes.extend(key.prefix);
        }
        if anchor.is_of_request {
            self.by_request.push(at);
        }
    }

    /// Visits lists of rules, each in ascending order, which together name every rule that could hold.
    pub(super) fn visit(&self, facts: &Facts, effect: Effect, mut look: impl FnMut(&[u32])) {
        look(&self.any);
        if self.anchored.is_empty() && self.by_request.is_empty() {
            return;
        }
        let mut known = |hash: u64| {
            if let Some(rules) = self.anchored.get(&hash) {
                look(rules);
            }
        };
        if let Some(peer) = &facts.peer {
            let (domain, namespace, account) =
                (peer.trust_domain().as_str(), peer.namespace(), peer.service_account());
            known(anchor::hash(Class::Principal, &[domain, "/ns/", namespace, "/sa/", account]));
            known(anchor::hash(Class::Namespace, &[namespace]));
            known(anchor::hash(Class::Account, &[namespace, "/", account]));
        }
        known(anchor::hash_port(facts.destination.port()));
        if let Some(request) = &facts.request {
            self.visit_request(request, known);
        }
        let is_seen = facts.request.as_ref().is_some_and(|request| !has_no_path(request));
        if !is_seen && effect == Effect::Deny {
            look(&self.by_request);
        }
    }

    fn visit_request(&self, request: &RequestFacts, mut known: impl FnMut(u64)) {
        known(anchor::hash(Class::Method, &[request.method.as_str()]));
        known(anchor::hash_host(&request.target.authority));
        if let Some((issuer, subject)) = request.token.as_ref().and_then(token::principal) {
            known(anchor::hash(Class::Token, &[issuer, "\0", subject]));
        }
        let mut lengths = self.prefixes.iter().copied().peekable();
        let whole = anchor::hash_path(&request.target.path, |length, hash| {
            while lengths.next_if(|next| *next < length).is_some() {}
            if lengths.next_if_eq(&length).is_some() {
                known(hash);
            }
            if lengths.peek().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        known(whole);
    }
}
