//! `douane policy suggest`.

use std::{io::BufReader, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use super::answer::{NO, Output, YES, print_json, unanswered};
use crate::{
    cli::print::{print_text, remark},
    policy::{
        input,
        load::load_sound,
        observed::Log,
        suggestion::{Suggestions, suggest},
    },
};

#[derive(Args)]
pub(in crate::cli) struct Suggest {
    /// Access logs of sidecars; repeatable; - is the standard input.
    #[arg(long, required = true, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Files or folders of manifests, which say the labels of pods; repeatable.
    #[arg(long)]
    resources: Vec<PathBuf>,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) const HELP: &str = "\
An ALLOW policy for each workload that was asked, of the requests that were allowed: by caller, method and path. \
Paths that differ in an identifier become a template (/orders/{*}) where there are many. Review it: a request \
that should not have been is in there, too, and a rare one may be missing, as is a stream that is still open (it \
is written at its end). Try it with `douane policy diff` before it is applied.

  cat *.douane-proxy.log > access.log
  douane policy suggest --log access.log --resources mesh/ > proposed.yaml
  douane policy lint proposed.yaml
  douane policy diff mesh/ proposed.yaml --requests access.log

Exit codes: 0 there is a suggestion, 1 the log holds no allowed request, 2 a file cannot be read.";

/// Suggests.
pub(super) fn run(asked: &Suggest) -> Result<ExitCode> {
    let suggestions = match suggestions(asked) {
        Ok(suggestions) => suggestions,
        Err(error) => return Ok(unanswered(&format!("{error:#}"))),
    };
    match asked.output {
        Output::Json => print_json(&suggestions)?,
        Output::Text => {
            suggestions.notes.iter().for_each(|note| remark(&format!("note: {note}")));
            print_text(&suggestions.text())?;
        }
    }
    Ok(ExitCode::from(if suggestions.policies.is_empty() { NO } else { YES }))
}

fn suggestions(asked: &Suggest) -> Result<Suggestions> {
    let resources = load_sound(&asked.resources)?;
    let mut log = Log::default();
    for path in &asked.log {
        let read = || format!("read {}", path.display());
        let file = input::open(path).with_context(read)?;
        log.read(BufReader::new(file)).with_context(read)?;
    }
    Ok(suggest(&log, &resources))
}
