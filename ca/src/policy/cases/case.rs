//! A case and its parts, as plain values.

use std::{path::Path, sync::Arc};

use douane_proto::law::Governing;

use crate::policy::{
    asked::{Asked, Mesh, Verdict, Workload},
    wrong::Wrong,
};

/// A file of cases.
#[derive(Debug)]
pub struct CaseFile {
    /// As it was named.
    pub path: Arc<Path>,
    /// Its cases in order; one that is written wrongly does not stop the others.
    pub cases: Vec<Result<Case, Unreadable>>,
}

/// Policies, a workload that they govern, and what is asked of it.
#[derive(Debug)]
pub struct Case {
    /// What it is called; `case 3` where it has no name.
    pub name: String,
    /// Where it begins, counted from 1.
    pub line: u32,
    /// The settings of the mesh.
    pub mesh: Mesh,
    /// Who is asked.
    pub workload: Workload,
    /// The law of the workload.
    pub governing: Governing,
    /// What is wrong with the policies, one line each; they are enforced all the same, as a sidecar would.
    pub problems: Vec<String>,
    /// What is asked.
    pub requests: Vec<Request>,
}

/// A case that is written wrongly.
#[derive(Debug)]
pub struct Unreadable {
    /// Its name, as far as it can be read.
    pub name: String,
    /// What is wrong.
    pub wrong: Wrong,
    /// Where its requests stand; none of them was tried.
    pub requests: Vec<u32>,
}

/// A request (or an opaque connection) and what should become of it.
#[derive(Debug)]
pub struct Request {
    /// Where it begins, counted from 1.
    pub line: u32,
    /// What is asked; or why it cannot be asked.
    pub asked: Result<Asked, Wrong>,
    /// What should become of it.
    pub expected: Verdict,
    /// Free text.
    pub why: Option<String>,
}
