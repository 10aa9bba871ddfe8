//! What a decision costs, by the number of rules: where few of them could match, and where all could.
//!
//! `cargo bench -p douane-proto` prints a table; `cargo bench -p douane-proto -- -o json` one JSON object. Plain time, no
//! framework: the median of several runs of the same decision.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use douane_proto::{
    facts::{Facts, RequestFacts},
    id::TrustDomain,
    policy::{Answers, Decision, Policy, PolicySet, Trust, decide},
    target::{PathNormalization, Target},
    wire,
};
use http::{HeaderMap, Method};

/// Istio's bound for the rules of a policy.
const RULES_OF_A_POLICY: usize = 512;
const SIZES: [usize; 4] = [1, 100, 1_000, 10_000];
/// Long enough for a clock, short enough for nobody to wait.
const RUN: Duration = Duration::from_millis(20);
const RUNS: usize = 7;

/// What tells one rule from the next.
#[derive(Clone, Copy)]
enum Shape {
    /// Who calls.
    Identity,
    /// Below which path.
    PathPrefix,
    /// Nothing but a header: every rule could match.
    Header,
}

struct Measured {
    shape: Shape,
    verdict: &'static str,
    rules: usize,
    nanoseconds: f64,
}

fn main() {
    // Cargo's own arguments (`--bench`) are passed over.
    let arguments: Vec<String> = std::env::args().collect();
    let is_json = arguments.windows(2).any(|pair| pair == ["-o", "json"]);
    let mut measured = Vec::new();
    for shape in [Shape::Identity, Shape::PathPrefix, Shape::Header] {
        for rules in SIZES {
            let policies = compiled(shape, rules);
            // The last rule holds: what a look at all of them would find last.
            for (verdict, facts) in [("allowed", facts(rules - 1)), ("denied", facts(rules))] {
                let expected = verdict == "allowed";
                let decided = decide(&policies, &facts, &Answers::default());
                assert_eq!(matches!(decided, Decision::Allow(_)), expected, "{} {rules}", shape.name());
                let nanoseconds = median(&policies, &facts);
                measured.push(Measured { shape, verdict, rules, nanoseconds });
            }
        }
    }
    if is_json { print_json(&measured) } else { print_table(&measured) }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "by identity",
            Self::PathPrefix => "by path prefix",
            Self::Header => "all could match",
        }
    }

    fn rule(self, index: usize) -> wire::Rule {
        let mut rule = wire::Rule::default();
        match self {
            Self::Identity => rule.from.push(wire::Source {
                principals: vec![format!("cluster.local/ns/shop/sa/caller-{index}")],
                ..Default::default()
            }),
            Self::PathPrefix => rule
                .to
                .push(wire::Operation { paths: vec![format!("/orders/{index}/*")], ..Default::default() }),
            Self::Header => rule.when.push(wire::Condition {
                key: "request.headers[x-caller]".to_owned(),
                values: vec![format!("caller-{index}")],
                ..Default::default()
            }),
        }
        rule
    }
}

fn compiled(shape: Shape, rules: usize) -> PolicySet {
    let indices: Vec<usize> = (0..rules).collect();
    let policies: Vec<Policy> = indices
        .chunks(RULES_OF_A_POLICY)
        .enumerate()
        .map(|(number, chunk)| {
            let policy = wire::Policy {
                namespace: "shop".to_owned(),
                name: format!("callers-{number}"),
                rules: chunk.iter().map(|index| shape.rule(*index)).collect(),
                ..wire::Policy::default()
            };
            Policy::from_wire(policy).expect("the policies are valid")
        })
        .collect();
    let local = TrustDomain::parse("cluster.local").expect("a trust domain");
    PolicySet::compile(&policies, Trust { local: &local, aliases: &[] })
}

/// A request that exactly the rule of this index allows.
fn facts(index: usize) -> Facts {
    let target =
        Target::parse("orders.shop:8080", &format!("/orders/{index}/items"), PathNormalization::Base);
    let mut headers = HeaderMap::new();
    headers.insert("x-caller", format!("caller-{index}").parse().expect("a header value"));
    let peer = format!("spiffe://cluster.local/ns/shop/sa/caller-{index}");
    Facts {
        peer: Some(peer.parse().expect("an identity")),
        source: [10, 77, 0, 5].into(),
        remote: [10, 77, 0, 5].into(),
        destination: ([10, 77, 0, 9], 8080).into(),
        sni: None,
        request: Some(RequestFacts {
            method: Method::GET,
            target: target.expect("a target"),
            headers,
            token: None,
        }),
    }
}

fn median(policies: &PolicySet, facts: &Facts) -> f64 {
    let answers = Answers::default();
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (start, mut decisions) = (Instant::now(), 0_u32);
            while start.elapsed() < RUN {
                for _ in 0..16 {
                    black_box(decide(black_box(policies), black_box(facts), &answers));
                }
                decisions += 16;
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(decisions)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}

fn print_table(measured: &[Measured]) {
    println!("{:<16} {:<8} {:>8} {:>14}", "rules", "verdict", "count", "ns/decision");
    for Measured { shape, verdict, rules, nanoseconds } in measured {
        println!("{:<16} {verdict:<8} {rules:>8} {nanoseconds:>14.0}", shape.name());
    }
}

fn print_json(measured: &[Measured]) {
    let rows: Vec<_> = measured
        .iter()
        .map(|Measured { shape, verdict, rules, nanoseconds }| {
            serde_json::json!({
                "rules": shape.name(), "verdict": verdict, "count": rules, "ns_per_decision": nanoseconds.round(),
            })
        })
        .collect();
    println!("{}", serde_json::json!({ "decisions": rows }));
}
