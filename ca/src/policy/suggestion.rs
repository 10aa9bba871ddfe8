//! Least-privilege policies from what was observed: what was allowed stays allowed, and nothing else.
//!
//! One policy for each workload, its rules by caller. Whoever applies one reviews it first: an observed request may have
//! been one that should not be, and a rare one may not have been observed.

use std::collections::{BTreeMap, BTreeSet};

use douane_proto::{resource::Resource, wire};
use serde::Serialize;

use crate::policy::{
    asked::Verdict,
    comparison::workload,
    observed::{Log, Observed, Seen},
    paths, written,
};

/// Istio takes 512 entries; a rule with so many paths is read by nobody.
const MOST_PATHS: usize = 200;
/// Labels by which workloads are called, the first that is there is enough to select.
const NAMES: &[&str] = &["app.kubernetes.io/name", "app", "k8s-app"];

/// A policy for one workload.
#[derive(Debug, Serialize)]
pub struct Suggestion {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Allowed requests that it was made of.
    pub requests: u64,
    /// What its reviewer must know.
    pub notes: Vec<String>,
    /// The policy.
    pub yaml: String,
}

/// Policies for every workload that was asked.
#[derive(Debug, Default, Serialize)]
pub struct Suggestions {
    /// One for each.
    pub policies: Vec<Suggestion>,
    /// What was left out.
    pub notes: Vec<String>,
}

/// What one caller did.
#[derive(Default)]
struct Habit {
    /// Path -> methods.
    paths: BTreeMap<String, BTreeSet<String>>,
    /// Ports of opaque streams.
    ports: BTreeSet<u16>,
    requests: u64,
}

/// Makes policies of a log. `resources`: where the labels of pods stand, as far as they are known.
#[must_use]
pub fn suggest(log: &Log, resources: &[Resource]) -> Suggestions {
    let mut workloads: BTreeMap<(&str, &str), Vec<(&Observed, Seen)>> = BTreeMap::new();
    let (mut undecided, mut refused) = (0, 0);
    for (observed, seen) in &log.requests {
        match observed.verdict {
            Some(Verdict::Allow) => {
                let key = (observed.namespace.as_str(), observed.service.as_str());
                workloads.entry(key).or_default().push((observed, *seen));
            }
            Some(_) => refused += seen.count,
            None => undecided += seen.count,
        }
    }
    let mut notes = Vec::new();
    for (count, what) in [
        (refused, "requests were refused; nothing is suggested for them"),
        (undecided, "requests were not decided; nothing is suggested for them"),
        (log.unreadable, "lines are no JSON"),
        (log.beyond, "requests are left out: there are too many different ones"),
    ] {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    }
    let policies = workloads
        .into_iter()
        .map(|((namespace, name), requests)| for_workload(namespace, name, &requests, resources));
    Suggestions { policies: policies.collect(), notes }
}

impl Suggestions {
    /// The policies as a file, with comments for their reviewer.
    #[must_use]
    pub fn text(&self) -> String {
        let documents = self.policies.iter().map(|suggestion| {
            let Suggestion { workload, requests, notes, yaml } = suggestion;
            let notes: String = notes.iter().map(|note| format!("# {note}\n")).collect();
            format!(
                "# {workload}: of {requests} allowed requests. What is not listed will be denied.\n{notes}{yaml}"
            )
        });
        documents.collect::<Vec<_>>().join("---\n")
    }
}

fn for_workload(
    namespace: &str,
    name: &str,
    requests: &[(&Observed, Seen)],
    resources: &[Resource],
) -> Suggestion {
    let mut notes = Vec::new();
    let known = requests.iter().find_map(|(observed, _)| workload(observed, resources));
    let labels = match known.filter(|workload| !workload.labels.is_empty()) {
        Some(workload) => selecting(&workload.labels),
        None => {
            notes.push(format!(
                "no manifest says its labels: app: {} is a guess, check it",
                written::scalar(name)
            ));
            [("app".to_owned(), name.to_owned())].into()
        }
    };
    let mut habits: BTreeMap<String, Habit> = BTreeMap::new();
    let (mut total, mut nameless, mut unwritable) = (0, 0, 0);
    for (observed, seen) in requests {
        total += seen.count;
        let Some(peer) = &observed.peer else {
            nameless += seen.count;
            continue;
        };
        let habit = habits.entry(peer.principal()).or_default();
        match &observed.request {
            None => drop(habit.ports.insert(observed.destination.port())),
            Some(request) if paths::is_writable(&request.path) => {
                habit.paths.entry(request.path.clone()).or_default().insert(request.method.clone());
            }
            Some(_) => {
                unwritable += seen.count;
                continue;
            }
        }
        habit.requests += seen.count;
    }
    if nameless > 0 {
        notes.push(format!("{nameless} came without an identity (plaintext); no rule allows them"));
    }
    if unwritable > 0 {
        notes.push(format!(
            "{unwritable} had paths that no policy can name exactly (* or braces); no rule allows them"
        ));
    }
    let (rules, comments) = rules(habits);
    let policy = wire::Policy {
        namespace: namespace.to_owned(),
        name: format!("{name}-callers"),
        rules,
        ..wire::Policy::default()
    };
    Suggestion {
        workload: format!("{namespace}/{name}"),
        requests: total,
        notes,
        yaml: written::policy(&policy, &labels, &comments),
    }
}

// Callers that do the same share a rule.
fn rules(habits: BTreeMap<String, Habit>) -> (Vec<wire::Rule>, Vec<Option<String>>) {
    let mut rules: Vec<(wire::Rule, u64, Vec<String>)> = Vec::new();
    for (principal, habit) in habits {
        let requests = habit.requests;
        let (to, notes) = operations(habit);
        if to.is_empty() {
            continue;
        }
        match rules.iter_mut().find(|(rule, ..)| rule.to == to) {
            Some((rule, sum, _)) => {
                *sum += requests;
                rule.from.iter_mut().for_each(|source| source.principals.push(principal.clone()));
            }
            None => {
                let from = vec![wire::Source { principals: vec![principal], ..wire::Source::default() }];
                rules.push((wire::Rule { from, to, ..wire::Rule::default() }, requests, notes));
            }
        }
    }
    let mut comments = Vec::new();
    let mut written = Vec::new();
    for (rule, requests, notes) in rules {
        let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
        comments.push(Some(format!("{requests} requests{notes}")));
        written.push(rule);
    }
    (written, comments)
}

fn operations(habit: Habit) -> (Vec<wire::Operation>, Vec<String>) {
    let mut notes = Vec::new();
    let mut by_methods: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (path, methods) in paths::generalize(habit.paths) {
        by_methods.entry(methods.into_iter().collect()).or_default().push(path);
    }
    let mut operations = Vec::new();
    for (methods, mut paths) in by_methods {
        if paths.len() > MOST_PATHS {
            notes.push(format!(
                "{} paths of {} are too many to list: any path is allowed, narrow it by hand",
                paths.len(),
                methods.join(", ")
            ));
            paths.clear();
        }
        operations.push(wire::Operation { methods, paths, ..wire::Operation::default() });
    }
    if !habit.ports.is_empty() {
        let ports = habit.ports.iter().map(ToString::to_string).collect();
        operations.push(wire::Operation { ports, ..wire::Operation::default() });
    }
    (operations, notes)
}

fn selecting(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    for name in NAMES {
        if let Some(value) = labels.get(*name) {
            return [((*name).to_owned(), value.clone())].into();
        }
    }
    written::lasting(labels)
}
