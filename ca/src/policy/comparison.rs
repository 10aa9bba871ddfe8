//! Two sets of laws side by side: which recorded requests would become something else.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use douane_proto::{law::govern, policy::PolicyError, resource::Resource};
use serde::Serialize;

use crate::policy::{
    asked::{Asked, Mesh, Verdict, Workload},
    cases::{self, FileError},
    destination::running,
    input,
    observed::{self, Log, Observed},
    receiver::Receiver,
};

/// Something that was asked, of whom, and where that is recorded.
#[derive(Debug)]
pub struct Recorded {
    /// `file:line`.
    pub place: String,
    /// What it is, for a human.
    pub title: String,
    /// How often.
    pub count: u64,
    /// Who was asked.
    pub workload: Workload,
    /// What.
    pub asked: Asked,
    /// The mesh's settings where the record has some of its own.
    pub mesh: Option<Mesh>,
    /// What became of it, where the record says so.
    pub verdict: Option<Verdict>,
}

/// All that was recorded.
#[derive(Debug, Default)]
pub struct Record {
    /// Each request.
    pub requests: Vec<Recorded>,
    /// What was left out, and what is not known, one line each.
    pub notes: Vec<String>,
}

/// What is other now.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Requests that were decided twice, repetitions counted.
    pub compared: u64,
    /// Those whose verdict changes, repetitions counted.
    pub changed: u64,
    /// Each of them.
    pub changes: Vec<Changed>,
    /// What was left out, and what is not known.
    pub notes: Vec<String>,
}

/// A request whose verdict changes.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// `file:line` of the record.
    pub place: String,
    /// What it is.
    pub request: String,
    /// How often it was recorded.
    pub count: u64,
    /// The verdict of the old policies.
    pub old: &'static str,
    /// Why.
    pub old_explanation: String,
    /// The verdict of the new policies.
    pub new: &'static str,
    /// Why.
    pub new_explanation: String,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not readable.
    #[error("{path}: {why}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A case file that is none.
    #[error(transparent)]
    Cases(#[from] FileError),
}

/// Reads what was recorded: a case file, or an access log. `resources`: where the labels of logged pods stand.
///
/// # Errors
/// When the file cannot be read.
pub fn record(path: &Path, resources: &[&[Resource]], now: u64) -> Result<Record, RecordError> {
    let read = |why| RecordError::Read { path: path.to_owned(), why };
    let mut file = BufReader::new(input::open(path).map_err(read)?);
    if !observed::is_log(file.fill_buf().map_err(read)?) {
        let text = input::bounded_text(file, cases::MAX_FILE_BYTES).map_err(read)?;
        return Ok(of_cases(&cases::parse(path, &text, now)?));
    }
    let mut log = Log::default();
    log.read(file).map_err(read)?;
    Ok(of_log(path, &log, resources))
}

/// Decides everything that was recorded by `old` and by `new`.
///
/// # Errors
/// When a workload has more policies than it can have.
pub fn compare(
    record: Record,
    old: &[Resource],
    new: &[Resource],
    mesh: &Mesh,
    now: u64,
) -> Result<Comparison, PolicyError> {
    let Record { requests, mut notes } = record;
    let mut comparison = Comparison { compared: 0, changed: 0, changes: Vec::new(), notes: Vec::new() };
    let (mut before, mut after) = (Receivers::of(old), Receivers::of(new));
    let mut otherwise = 0;
    for request in requests {
        let mesh = request.mesh.as_ref().unwrap_or(mesh);
        let was = before.find(&request.workload, mesh)?.judge(&request.asked, now);
        let is = after.find(&request.workload, mesh)?.judge(&request.asked, now);
        comparison.compared += request.count;
        otherwise += request.verdict.filter(|verdict| *verdict != was.verdict).map_or(0, |_| request.count);
        if was.verdict == is.verdict {
            continue;
        }
        comparison.changed += request.count;
        comparison.changes.push(Changed {
            place: request.place,
            request: request.title,
            count: request.count,
            old: was.verdict.name(),
            old_explanation: was.explanation,
            new: is.verdict.name(),
            new_explanation: is.explanation,
        });
    }
    if otherwise > 0 {
        notes.push(format!(
            "{otherwise} requests were answered otherwise than the old policies would: by other policies, or by what \
             the record does not hold"
        ));
    }
    comparison.notes = notes;
    Ok(comparison)
}

impl Record {
    /// Takes in what was recorded elsewhere; a note is said once.
    pub fn add(&mut self, other: Self) {
        self.requests.extend(other.requests);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

impl Comparison {
    /// For a human.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for Changed { place, request, count, old, new, new_explanation, .. } in &self.changes {
            let times = if *count == 1 { String::new() } else { format!(" ({count} times)") };
            lines.push(format!("{place}: {request}{times}: {old} -> {new}: {new_explanation}"));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.push(format!("{} of {} requests change", self.changed, self.compared));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

// One for each workload and mesh; most requests are for few workloads.
struct Receivers<'a> {
    resources: &'a [Resource],
    known: BTreeMap<String, Receiver>,
}

impl<'a> Receivers<'a> {
    fn of(resources: &'a [Resource]) -> Self {
        Self { resources, known: BTreeMap::new() }
    }

    fn find(&mut self, workload: &Workload, mesh: &Mesh) -> Result<&mut Receiver, PolicyError> {
        let key = format!("{} {:?} {mesh:?}", workload.namespace, workload.labels);
        Ok(match self.known.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let governing = govern(self.resources, &workload.namespace, &workload.labels, &mesh.law);
                place.insert(Receiver::new(&governing, mesh)?)
            }
        })
    }
}

fn of_cases(file: &cases::CaseFile) -> Record {
    let mut record = Record::default();
    for case in &file.cases {
        let case = match case {
            Ok(case) => case,
            Err(unreadable) => {
                record.notes.push(format!(
                    "{}:{}: case {} is left out: {}",
                    file.path.display(),
                    unreadable.wrong.line,
                    unreadable.name,
                    unreadable.wrong.what
                ));
                continue;
            }
        };
        for (index, request) in case.requests.iter().enumerate() {
            let place = format!("{}:{}", file.path.display(), request.line);
            let title = format!("case {} request {}", case.name, index + 1);
            match &request.asked {
                Ok(asked) => record.requests.push(Recorded {
                    place,
                    title,
                    count: 1,
                    workload: case.workload.clone(),
                    asked: asked.clone(),
                    mesh: Some(case.mesh.clone()),
                    verdict: None,
                }),
                Err(wrong) => record.notes.push(format!("{place}: {title} is left out: {}", wrong.what)),
            }
        }
    }
    record
}

fn of_log(path: &Path, log: &Log, resources: &[&[Resource]]) -> Record {
    let mut record = Record::default();
    let mut strangers: BTreeMap<String, u64> = BTreeMap::new();
    for (observed, seen) in &log.requests {
        let Some(workload) = resources.iter().find_map(|resources| workload(observed, resources)) else {
            *strangers.entry(format!("{}/{}", observed.namespace, observed.pod)).or_default() += seen.count;
            continue;
        };
        record.requests.push(Recorded {
            place: format!("{}:{}", path.display(), seen.line),
            title: observed.title(),
            count: seen.count,
            workload,
            asked: observed.asked(),
            mesh: None,
            verdict: observed.verdict,
        });
    }
    record
        .requests
        .sort_by_key(|request| request.place.rsplit_once(':').and_then(|(_, line)| line.parse::<u64>().ok()));
    record.notes.push(
        "the log holds no headers, tokens and client addresses: what policies say of them is decided as if there were none"
            .to_owned(),
    );
    for (pod, count) in strangers {
        record
            .notes
            .push(format!("{count} requests to {pod} are left out: no Pod or Deployment says its labels"));
    }
    for (count, what) in [
        (log.unreadable, "lines are no JSON"),
        (log.beyond, "requests are left out: there are too many different ones"),
    ] {
        if count > 0 {
            record.notes.push(format!("{count} {what}"));
        }
    }
    record
}

/// The workload that was asked, as its manifest describes it.
#[must_use]
pub fn workload(observed: &Observed, resources: &[Resource]) -> Option<Workload> {
    let all = running(resources);
    let here = || all.iter().filter(|running| running.namespace == observed.namespace);
    // A Deployment's pods are called after it.
    let of_deployment = |name: &str| {
        observed.pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')) || observed.service == name
    };
    let found =
        here().find(|running| running.kind == "Pod" && running.name == observed.pod).or_else(|| {
            here().filter(|running| of_deployment(running.name)).max_by_key(|running| running.name.len())
        })?;
    Some(found.destination(Some(observed.destination.port())).workload)
}
