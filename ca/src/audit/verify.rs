//! Is a log whole? Every line is held against the one before, the last against a head that was kept.
//!
//! What can be seen: a changed, removed, added or moved line; a missing file between two; a cut end, where a head is known
//! that lies behind it. What cannot: a cut end that is newer than every known head, the removal of the oldest files (the
//! first line that is there is named), and a log that was written anew as a whole by who could also write the head.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    chain::{Head, Line},
    files::{Folder, lines, name, predecessor},
    record::Event,
};

/// More are not listed: the log is worthless by then.
const MAX_FAULTS: usize = 1000;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that were read.
    pub files: usize,
    /// Lines that were read.
    pub records: u64,
    /// The number of the first record that is there.
    pub first: u64,
    /// The last one.
    pub head: Option<Head>,
    /// What is wrong; none: nothing of what can be seen.
    pub faults: Vec<Fault>,
    /// What an auditor should know, and is no fault.
    pub notes: Vec<String>,
}

/// Something that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub file: PathBuf,
    /// Counts from 1; 0: the file as a whole.
    pub line: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

struct Walk {
    report: Report,
    /// What the next line must follow; `None`: not known.
    before: Option<Head>,
    known: Vec<Head>,
}

/// Reads the log in `path` (a folder, or one file of it) and holds it against the head kept there and against `known`,
/// which was kept elsewhere.
///
/// # Errors
/// When something cannot be read at all.
pub fn verify(path: &Path, known: Option<Head>) -> io::Result<Report> {
    let mut walk = Walk { report: Report::default(), before: None, known: known.into_iter().collect() };
    let mut last = path.to_owned();
    if path.is_dir() {
        let folder = Folder::new(path);
        match folder.anchor() {
            Ok(anchor) => walk.known.extend(anchor),
            Err(error) => walk.fault(&path.join("head"), 0, format!("it is no head: {error}")),
        }
        let files = folder.files()?;
        let count = files.len();
        for (index, file) in files.into_iter().enumerate() {
            walk.file(&file, index + 1 == count)?;
            last = file;
        }
    } else {
        walk.file(path, true)?;
    }
    walk.finish(&last);
    Ok(walk.report)
}

impl Walk {
    fn file(&mut self, path: &Path, is_last: bool) -> io::Result<()> {
        self.report.files += 1;
        let mut number = 0;
        for raw in lines(path)? {
            let raw = raw?;
            number += 1;
            if !raw.whole && is_last {
                let half = format!(
                    "{}:{number} is half a line: it is being written, or its writer was killed",
                    name(path)
                );
                self.report.notes.push(half);
                return Ok(());
            }
            match Line::parse(&raw.bytes).filter(|_| raw.whole) {
                Some(line) => self.line(path, number, &line),
                None => {
                    self.fault(path, number, "it is no line of an audit log".to_owned());
                    self.before = None;
                }
            }
        }
        if number == 0 && !is_last {
            self.fault(path, 0, "it is empty".to_owned());
        }
        Ok(())
    }

    fn line(&mut self, path: &Path, number: u64, line: &Line<'_>) {
        let sequence = line.entry.sequence;
        self.report.records += 1;
        if self.report.first == 0 {
            self.begin(path, number, line);
        }
        if number == 1 {
            self.header(path, line);
        }
        if let Some(before) = self.before {
            let expected = before.sequence + 1;
            if sequence > expected {
                let to = sequence - 1;
                self.fault(path, number, format!("records {expected} to {to} are missing before it"));
            } else if sequence < expected {
                self.fault(path, number, format!("it is record {sequence} where {expected} must stand"));
            } else if !line.follows(before.hash) {
                let what = format!("record {sequence} was changed, or does not follow from the one before");
                self.fault(path, number, what);
            }
        }
        let reason = line.entry.record.reason.as_deref().unwrap_or_default();
        match line.entry.record.event {
            Event::Gap => self.fault(path, number, format!("the control plane found at its start: {reason}")),
            Event::Healed => self.report.notes.push(format!("{}:{number}: {reason}", name(path))),
            _ => {}
        }
        let head = line.head();
        if self.known.iter().any(|known| known.sequence == sequence && *known != head) {
            self.fault(path, number, format!("record {sequence} is not the one that was kept as the head"));
        }
        self.before = Some(head);
        self.report.head = Some(head);
    }

    fn begin(&mut self, path: &Path, number: u64, line: &Line<'_>) {
        self.report.first = line.entry.sequence;
        self.before = predecessor(line).filter(|_| number == 1);
        if self.before.is_none() && self.report.faults.is_empty() {
            self.fault(path, number, "the file does not begin with its own first line".to_owned());
        }
        if line.entry.sequence > 1 {
            let first = line.entry.sequence;
            self.report.notes.push(format!("the log begins with record {first}; earlier files are not here"));
        } else if self.before.is_some_and(|before| before != Head::START) {
            self.fault(path, number, "the first record follows another one".to_owned());
        }
    }

    // Each file names the line that it follows, so that one alone can be verified.
    fn header(&mut self, path: &Path, line: &Line<'_>) {
        let named = predecessor(line);
        match (named, self.before) {
            (Some(named), Some(before)) if named.hash != before.hash => {
                let (from, to) = (before.sequence + 1, named.sequence);
                let what = if from <= to {
                    format!("records {from} to {to} are missing before it")
                } else {
                    "the file follows another one than that before it".to_owned()
                };
                self.fault(path, 1, what);
                // Reported once: what follows is held against what the file itself says.
                self.before = Some(named);
            }
            (None, Some(_)) if self.report.records > 1 => {
                self.fault(path, 1, "the file does not begin with its own first line".to_owned());
            }
            _ => {}
        }
    }

    fn finish(&mut self, last: &Path) {
        let end = self.report.head.map_or(0, |head| head.sequence);
        if let Some(known) = self.known.iter().map(|known| known.sequence).max().filter(|known| *known > end)
        {
            let what = format!("records {} to {known} are missing at the end", end + 1);
            let line = 0;
            self.fault(last, line, what);
        }
        let first = self.report.first;
        if self.known.iter().any(|known| known.sequence < first) {
            self.report.notes.push("a head that is known lies before what is here".to_owned());
        }
    }

    fn fault(&mut self, file: &Path, line: u64, what: String) {
        if self.report.faults.len() < MAX_FAULTS {
            self.report.faults.push(Fault { file: file.to_owned(), line, what });
        }
    }
}
