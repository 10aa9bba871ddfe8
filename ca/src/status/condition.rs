//! What is said of one object: three conditions at most, in words that an author can act on, and what of them is news.
//!
//! Pure. Others write conditions of their own beside ours (Istio's control plane does); theirs stay as they are.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::governed::Governed;
use crate::{
    discovery::{LeftOut, Note},
    policy::lint::{Finding, Severity},
};

/// Is it read, and in force?
pub(super) const ACCEPTED: &str = "douane.io/Accepted";
/// Does it govern anybody?
pub(super) const GOVERNS: &str = "douane.io/Governs";
/// Does it do what it seems to say?
pub(super) const AS_WRITTEN: &str = "douane.io/AsWritten";
/// Kubernetes takes 32 KiB; nobody reads so much.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A condition of ours, without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// How what stands there differs from what is to stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Not at all.
    None,
    /// By a number of workloads: that changes with every pod.
    Figures,
    /// By more.
    Words,
}

/// What is said of `note`, by what was `found` of it, whom it governs, and what it contradicts.
pub(super) fn conditions(
    note: &Note,
    found: &[&Finding],
    governed: Option<Governed>,
    left_out: &[&LeftOut],
) -> Vec<Condition> {
    let whats = |findings: &[&Finding]| {
        findings.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>().join("; ")
    };
    if !note.errors.is_empty() {
        let message = format!("{}; until then {}", whats(found), meanwhile(note));
        return vec![unmet(ACCEPTED, "Invalid", message)];
    }
    if !left_out.is_empty() {
        let message = left_out.iter().map(|left_out| left_out.what.as_str()).collect::<Vec<_>>().join("; ");
        return vec![unmet(ACCEPTED, "LeftOut", message)];
    }
    let mut all = vec![met(ACCEPTED, "InForce", "it is in force".to_owned())];
    let Some(governed) = governed else { return all };
    all.push(governs(governed));
    let is_bad = found.iter().any(|finding| finding.severity == Severity::Error);
    all.push(match (found.is_empty(), is_bad) {
        (true, _) => met(AS_WRITTEN, "NothingFound", "douane policy lint finds nothing".to_owned()),
        (false, true) => unmet(AS_WRITTEN, "Errors", whats(found)),
        (false, false) => unmet(AS_WRITTEN, "Warnings", whats(found)),
    });
    all
}

/// The conditions that are to stand there, and what is news among them. What was so before keeps its time.
pub(super) fn merged(note: &Note, wanted: &[Condition], now: SystemTime) -> (Vec<Value>, News) {
    let is_ours = |value: &&Value| {
        [ACCEPTED, GOVERNS, AS_WRITTEN].iter().any(|kind| value["type"].as_str() == Some(kind))
    };
    let mut all: Vec<Value> = note.conditions.iter().filter(|value| !is_ours(value)).cloned().collect();
    let before: Vec<&Value> = note.conditions.iter().filter(is_ours).collect();
    let mut news = if before.len() == wanted.len() { News::None } else { News::Words };
    for condition in wanted {
        let known = before.iter().copied().find(|value| value["type"] == condition.kind);
        news = news.max(known.map_or(News::Words, |known| condition.news(known, note.generation)));
        all.push(condition.write(known, note.generation, now));
    }
    (all, news)
}

impl Condition {
    fn news(&self, known: &Value, generation: i64) -> News {
        let same = known["status"] == self.status() && known["reason"] == self.reason;
        // Definitions of older installations of Istio have no place for it.
        let is_of_now = known.get("observedGeneration").is_none_or(|seen| *seen == generation);
        if !same || !is_of_now {
            News::Words
        } else if known["message"] == self.message.as_str() {
            News::None
        } else if self.kind == GOVERNS {
            News::Figures
        } else {
            News::Words
        }
    }

    fn write(&self, known: Option<&Value>, generation: i64, now: SystemTime) -> Value {
        let since =
            known.filter(|known| known["status"] == self.status()).map(|known| &known["lastTransitionTime"]);
        let since = since.filter(|since| since.is_string()).cloned();
        let mut written = Map::new();
        let mut say = |key: &str, value: Value| written.insert(key.to_owned(), value);
        say("type", self.kind.into());
        say("status", self.status().into());
        say("reason", self.reason.into());
        say("message", self.message.clone().into());
        say("observedGeneration", generation.into());
        let now = || json!(humantime::format_rfc3339_seconds(now).to_string());
        say("lastTransitionTime", since.unwrap_or_else(now));
        Value::Object(written)
    }

    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

fn met(kind: &'static str, reason: &'static str, message: String) -> Condition {
    Condition { kind, holds: true, reason, message: bounded(message) }
}

fn unmet(kind: &'static str, reason: &'static str, message: String) -> Condition {
    Condition { holds: false, ..met(kind, reason, message) }
}

fn governs(governed: Governed) -> Condition {
    match governed {
        Governed::Elsewhere => {
            let message = "its targetRefs name gateways, waypoints or services: it governs no sidecar";
            unmet(GOVERNS, "Elsewhere", message.to_owned())
        }
        Governed::Workloads { all: 0, .. } => {
            let message = "no workload of the cluster is selected; where that is not meant, compare its selector with \
                           kubectl get pods --show-labels";
            unmet(GOVERNS, "Nobody", message.to_owned())
        }
        Governed::Workloads { all, bare: 0 } => met(GOVERNS, "Workloads", counted(all)),
        Governed::Workloads { all, bare } if all == bare => {
            let message = format!("{}, all of them without a sidecar: nobody enforces it", counted(all));
            unmet(GOVERNS, "NoSidecar", message)
        }
        Governed::Workloads { all, bare } => {
            let message =
                format!("{}, {bare} of them without a sidecar, where nobody enforces it", counted(all));
            met(GOVERNS, "SomeWithoutSidecar", message)
        }
    }
}

fn counted(workloads: usize) -> String {
    if workloads == 1 { "1 workload".to_owned() } else { format!("{workloads} workloads") }
}

fn meanwhile(note: &Note) -> &'static str {
    match (&note.resource, note.kind) {
        (Some(_), _) => "what it said before stays in force",
        (None, "PeerAuthentication") => "whom it names takes no connection without a certificate",
        (None, "AuthorizationPolicy" | "RequestAuthentication") => "whom it names is denied everything",
        (None, _) => "it is not part of the mesh",
    }
}

fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES - '…'.len_utf8()).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or_default());
        message.push('…');
    }
    message
}
