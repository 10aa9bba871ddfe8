//! What is wrong with laws before they are applied: everything that validation rejects, and what surely is not meant.
//!
//! Rejected is what the reader of `douane_proto::resource` rejects, each flaw with its line. `advice` and
//! `never` look at a policy by itself, `cover` and `prefix` compare rules, `selection` compares laws with the workloads among
//! the files. Knows no files (`load`).

mod advice;
mod check;
mod cover;
mod never;
mod prefix;
mod selection;
mod wildcard;

pub use check::{Finding, Findings, Providers, Severity, lint};
