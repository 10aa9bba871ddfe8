//! What is to be written now, of everything that operators wrote: what has news, and was not answered already.
//!
//! Pure: takes the time. A number of workloads alone is written seldom, since it changes with every pod.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use super::{
    condition::{News, conditions, merged},
    governed::Census,
};
use crate::{
    discovery::{Index, LeftOut, Note, Notes},
    policy::{
        asked::Mesh,
        lint::{Finding, Findings, Providers, lint},
        load::Loaded,
    },
};

/// A number of workloads is corrected so often at most.
pub(super) const FIGURES_EVERY: Duration = Duration::from_secs(10);

/// Conditions that are to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Update {
    pub(super) note: Note,
    pub(super) conditions: Vec<Value>,
}

/// What was written, by object: over which state, and when.
#[derive(Debug, Default)]
pub(super) struct Written(HashMap<Key, (String, Instant)>);

type Key = (&'static str, String, String);

impl Written {
    /// It was, just now.
    pub(super) fn note(&mut self, update: &Update, now: Instant) {
        self.0.insert(key(&update.note), (update.note.resource_version.clone(), now));
    }

    /// Forgets what is no more.
    pub(super) fn keep(&mut self, notes: &Notes) {
        let all: std::collections::HashSet<Key> = notes.written.iter().map(key).collect();
        self.0.retain(|key, _| all.contains(key));
    }

    // The API has not told us yet what it is since we wrote.
    fn is_answered(&self, note: &Note) -> bool {
        self.0.get(&key(note)).is_some_and(|(over, _)| *over == note.resource_version)
    }

    fn is_recent(&self, note: &Note, now: Instant) -> bool {
        self.0.get(&key(note)).is_some_and(|(_, at)| now.saturating_duration_since(*at) < FIGURES_EVERY)
    }
}

/// What is to be written, and whether something was put off.
pub(super) fn due(
    (notes, index): (&Notes, &Index),
    mesh: &Mesh,
    written: &Written,
    (now, date): (Instant, SystemTime),
) -> (Vec<Update>, PutOff) {
    // What cannot be read is judged by its errors alone.
    let sound = notes.written.iter().filter(|note| note.errors.is_empty());
    let loaded = Loaded {
        resources: sound.filter_map(|note| note.resource.clone()).collect(),
        errors: notes.written.iter().flat_map(|note| note.errors.iter().cloned()).collect(),
    };
    let Findings { findings, .. } = lint(&loaded, mesh, Providers::Known);
    let mut found: HashMap<&str, Vec<&Finding>> = HashMap::new();
    for finding in &findings {
        // What is large has no subject but its place.
        found.entry(finding.subject.as_deref().unwrap_or(&finding.file)).or_default().push(finding);
    }
    let mut left_out: HashMap<String, Vec<&LeftOut>> = HashMap::new();
    for one in &notes.left_out {
        left_out.entry(one.place.file.display().to_string()).or_default().push(one);
    }
    let census = Census::new(index.residents(), &mesh.law.root_namespace);
    let (mut updates, mut put_off) = (Vec::new(), PutOff::Nothing);
    for note in &notes.written {
        if written.is_answered(note) {
            continue;
        }
        let place = format!("{} {}/{}", note.kind, note.namespace, note.name);
        let governed = note.resource.as_ref().and_then(|law| census.of(law));
        let found = found.get(place.as_str()).map(Vec::as_slice).unwrap_or_default();
        let left_out = left_out.get(&place).map(Vec::as_slice).unwrap_or_default();
        let (conditions, news) = merged(note, &conditions(note, found, governed, left_out), date);
        match news {
            News::None => {}
            News::Figures if written.is_recent(note, now) => put_off = PutOff::Figures,
            News::Figures | News::Words => updates.push(Update { note: note.clone(), conditions }),
        }
    }
    (updates, put_off)
}

/// Was something put off?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutOff {
    /// No.
    Nothing,
    /// Numbers of workloads.
    Figures,
}

fn key(note: &Note) -> Key {
    (note.kind, note.namespace.clone(), note.name.clone())
}
