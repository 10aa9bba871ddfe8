//! The case files of `tests/policy`: what the semantics of each field, rule and trap demand, and what becomes of it.
//!
//! Written from the semantics, not from the engine; the same files run over the wire. Adding one needs no change here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use douane_ca::policy::{
    cases,
    trial::{Detail, Report},
};

/// So many requests are in the files at the least: a folder that is empty, or not found, proves nothing.
const MIN_REQUESTS: usize = 2000;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/policy");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    files.sort();
    files
}

fn report() -> Report {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut report = Report::default();
    for path in files() {
        report.add(&cases::read(&path, now).unwrap(), now);
    }
    report
}

#[test]
fn every_request_of_every_case_file_becomes_what_the_semantics_demand() {
    let report = report();

    assert_eq!(report.failed, 0, "\n{}", report.text(Detail::Failures));
    assert!(report.passed >= MIN_REQUESTS, "only {} requests were tried", report.passed);
}

#[test]
fn no_two_cases_have_one_name() {
    let report = report();
    let mut names = BTreeSet::new();

    let twice: Vec<&str> =
        report.cases.iter().map(|case| &*case.name).filter(|name| !names.insert(*name)).collect();

    assert_eq!(twice, Vec::<&str>::new());
}
