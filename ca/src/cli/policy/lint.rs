//! `douane policy lint`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::{
    answer::{NO, Output, YES, print_json, unanswered},
    settings::Settings,
};
use crate::{
    cli::print::print_text,
    policy::{lint, load::load},
};

#[derive(Args)]
pub(in crate::cli) struct Lint {
    /// Files, or folders of *.yaml and *.yml; - is the standard input.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) const HELP: &str = "\
Errors are what the control plane refuses: such a file changes nothing when it is applied. Warnings are what it \
takes and what surely is not meant: a rule that can never match or that another one shadows, a star that is no \
wildcard (/a/*/b, *a*), /admin* beside /admin or where another rule names /administrator, a DENY of HTTP fields \
only (on TCP ports it denies everything), a selector that selects no workload of the files (where there are \
any), plaintext, an undefined extension provider (with --mesh-config), targetRefs (which no sidecar obeys).

  douane policy lint mesh/                      everything in the folder
  douane policy lint --strict policy.yaml       for CI: a warning fails, too
  helm template chart/ | douane policy lint -   the standard input
  kubectl get authorizationpolicies -A -o yaml | douane policy lint -

Exit codes: 0 nothing wrong, 1 errors (with --strict: or warnings), 2 a file cannot be read.";

/// Looks at the files.
pub(super) fn run(asked: &Lint) -> Result<ExitCode> {
    let mesh = match asked.settings.mesh() {
        Ok(mesh) => mesh,
        Err(error) => return Ok(unanswered(&format!("{error:#}"))),
    };
    let loaded = match load(&asked.paths) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(unanswered(&error)),
    };
    let findings = lint::lint(&loaded, &mesh, asked.settings.providers());
    match asked.output {
        Output::Json => print_json(&findings)?,
        Output::Text => print_text(&findings.text())?,
    }
    let counted = findings.errors + if asked.strict { findings.warnings } else { 0 };
    Ok(ExitCode::from(if counted == 0 { YES } else { NO }))
}
