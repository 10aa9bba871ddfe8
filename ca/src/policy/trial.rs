//! The run of case files: each request is judged, and what became of it is compared with what was expected.

use std::{fmt::Write as _, path::Path};

use serde::Serialize;

use crate::policy::{
    asked::Verdict,
    cases::{Case, CaseFile, Request, Unreadable},
    receiver::{Judgement, Receiver},
};

/// What became of all cases.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The files, as they were named.
    pub files: Vec<String>,
    /// Requests that became what was expected.
    pub passed: usize,
    /// Requests that did not, and those of cases that could not be tried.
    pub failed: usize,
    /// Each case.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    /// Its file.
    pub file: String,
    /// Where it begins.
    pub line: u32,
    /// Its name.
    pub name: String,
    /// What is wrong with its policies; it was tried all the same.
    pub problems: Vec<String>,
    /// Why it could not be tried.
    pub error: Option<String>,
    /// Each request.
    pub requests: Vec<RequestReport>,
}

/// What became of one request.
#[derive(Debug, Serialize)]
pub struct RequestReport {
    /// Its number in the case, counted from 1.
    pub index: usize,
    /// Where it begins.
    pub line: u32,
    /// `allow`, `deny`, `401` or `400`.
    pub expected: Option<&'static str>,
    /// The same; or `error` when it could not be tried.
    pub actual: &'static str,
    /// Are they the same?
    pub passed: bool,
    /// Why it became that.
    pub explanation: String,
    /// The policy that decided, or the nearest that did not allow it.
    pub policy: Option<String>,
    /// Which of its rules, counted from 1.
    pub rule: Option<usize>,
    /// Free text of the request.
    pub why: Option<String>,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Failures only.
    Failures,
    /// Every request.
    Everything,
}

/// What could not be tried has this verdict.
const ERROR: &str = "error";

impl Report {
    /// Tries every case of `file`. `now`: seconds since 1970.
    pub fn add(&mut self, file: &CaseFile, now: u64) {
        self.files.push(file.path.display().to_string());
        for case in &file.cases {
            let report = match case {
                Ok(case) => tried(&file.path, case, now),
                Err(unreadable) => untried(&file.path, unreadable),
            };
            let passed = report.requests.iter().filter(|request| request.passed).count();
            self.passed += passed;
            self.failed += report.requests.len() - passed;
            // A case without requests failed all the same.
            self.failed += usize::from(report.error.is_some() && report.requests.is_empty());
            self.cases.push(report);
        }
    }

    /// A line for each failure (or each request), then what is wrong with policies, then the count.
    #[must_use]
    pub fn text(&self, detail: Detail) -> String {
        let mut text = String::new();
        for case in &self.cases {
            let CaseReport { file, line, name, error, .. } = case;
            if let Some(error) = error {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{file}:{line} case {name}: error: {error}");
            }
            let requests = case
                .requests
                .iter()
                .filter(|request| error.is_none() && (!request.passed || detail == Detail::Everything));
            for request in requests {
                let _ = writeln!(text, "{}", request.told(file, name));
            }
        }
        let _ = writeln!(text, "{} passed, {} failed", self.passed, self.failed);
        text
    }

    /// What is wrong with policies, one line each, each said once.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        for case in &self.cases {
            for problem in &case.problems {
                let line = format!("case {}: {problem}", case.name);
                if !problems.contains(&line) {
                    problems.push(line);
                }
            }
        }
        problems
    }
}

impl RequestReport {
    fn told(&self, file: &str, case: &str) -> String {
        let Self { index, line, actual, explanation, why, .. } = self;
        let expected = self.expected.unwrap_or("nothing");
        let why = why.as_ref().map(|why| format!(" (why: {why})")).unwrap_or_default();
        if self.passed {
            return format!("{file}:{line} case {case} request {index}: ok, {actual}: {explanation}");
        }
        format!(
            "{file}:{line} case {case} request {index}: expected {expected}, got {actual}: {explanation}{why}"
        )
    }
}

fn tried(path: &Path, case: &Case, now: u64) -> CaseReport {
    let mut problems = case.problems.clone();
    let receiver = Receiver::new(&case.governing, &case.mesh);
    if let Ok(receiver) = &receiver {
        // The sidecar complains of what the reader has found already, without its line.
        let is_known = |complaint: &&String| {
            let what = complaint.split_once(": ").map_or(complaint.as_str(), |(_, what)| what);
            case.problems.iter().any(|problem| problem.contains(what))
        };
        problems.extend(receiver.complaints().iter().filter(|complaint| !is_known(complaint)).cloned());
    }
    let requests =
        case.requests.iter().enumerate().map(|(index, request)| match (&receiver, &request.asked) {
            (Ok(receiver), Ok(asked)) => judged(index + 1, request, receiver.judge(asked, now)),
            (Err(error), _) => failed(index + 1, request, error.to_string()),
            (_, Err(wrong)) => failed(index + 1, request, format!("line {}: {}", wrong.line, wrong.what)),
        });
    CaseReport {
        file: path.display().to_string(),
        line: case.line,
        name: case.name.clone(),
        problems,
        error: None,
        requests: requests.collect(),
    }
}

fn judged(index: usize, request: &Request, judgement: Judgement) -> RequestReport {
    let Judgement { verdict, explanation, policy, rule } = judgement;
    RequestReport {
        index,
        line: request.line,
        expected: Some(request.expected.name()),
        actual: Verdict::name(verdict),
        passed: verdict == request.expected,
        explanation,
        policy,
        rule,
        why: request.why.clone(),
    }
}

fn failed(index: usize, request: &Request, error: String) -> RequestReport {
    RequestReport {
        index,
        line: request.line,
        expected: Some(request.expected.name()),
        actual: ERROR,
        passed: false,
        explanation: error,
        policy: None,
        rule: None,
        why: request.why.clone(),
    }
}

fn untried(path: &Path, unreadable: &Unreadable) -> CaseReport {
    let requests = unreadable.requests.iter().enumerate().map(|(index, line)| RequestReport {
        index: index + 1,
        line: *line,
        expected: None,
        actual: ERROR,
        passed: false,
        explanation: "the case cannot be read".to_owned(),
        policy: None,
        rule: None,
        why: None,
    });
    CaseReport {
        file: path.display().to_string(),
        line: unreadable.wrong.line,
        name: unreadable.name.clone(),
        problems: Vec::new(),
        error: Some(unreadable.wrong.what.clone()),
        requests: requests.collect(),
    }
}
