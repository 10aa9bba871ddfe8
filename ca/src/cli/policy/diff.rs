//! `douane policy diff`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::{
    answer::{NO, Output, YES, now, print_json, unanswered},
    settings::Settings,
};
use crate::{
    cli::print::print_text,
    policy::{
        comparison::{Comparison, Record, compare, record},
        load::load_sound,
    },
};

#[derive(Args)]
pub(in crate::cli) struct Diff {
    /// The policies of now: a file or a folder.
    old: PathBuf,
    /// The policies to be: a file or a folder.
    new: PathBuf,
    /// What was asked: a file of cases, or an access log of sidecars; repeatable; - is the standard input.
    #[arg(long, required = true, value_name = "FILE")]
    requests: Vec<PathBuf>,
    /// Manifests of workloads, where they stand beside neither of the two; repeatable.
    #[arg(long)]
    resources: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) const HELP: &str = "\
Every recorded request is decided by the old and by the new policies; those whose verdict changes are listed. Of \
a case file, its requests, workloads and mesh settings count, not its policies. An access log is what sidecars \
write (one JSON object a line); the lines of the receiving side count, and the labels of its pods are looked up \
among the manifests. A stream is written at its end: one that is still open is not in the log.

  douane policy diff mesh/ proposed/ --requests access.log
  cat *.douane-proxy.log | douane policy diff mesh/ proposed/ --requests -
  douane policy diff old.yaml new.yaml --requests cases.yaml --resources pods/

Exit codes: 0 nothing changes, 1 something does, 2 a file cannot be read.";

/// Compares.
pub(super) fn run(asked: &Diff) -> Result<ExitCode> {
    let comparison = match comparison(asked) {
        Ok(comparison) => comparison,
        Err(error) => return Ok(unanswered(&format!("{error:#}"))),
    };
    match asked.output {
        Output::Json => print_json(&comparison)?,
        Output::Text => print_text(&comparison.text())?,
    }
    Ok(ExitCode::from(if comparison.changed == 0 { YES } else { NO }))
}

fn comparison(asked: &Diff) -> Result<Comparison> {
    let (mesh, now) = (asked.settings.mesh()?, now()?);
    let old = load_sound(std::slice::from_ref(&asked.old))?;
    let new = load_sound(std::slice::from_ref(&asked.new))?;
    let beside = load_sound(&asked.resources)?;
    let mut all = Record::default();
    for path in &asked.requests {
        all.add(record(path, &[&new, &old, &beside], now)?);
    }
    Ok(compare(all, &old, &new, &mesh, now)?)
}
