//! `douane ca audit verify|list`: is the audit log whole, and what does it say of somebody?
//!
//! Reads the files of a state folder; a control plane may be running on it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::print::{print, print_text};
use crate::{
    audit::{self, Head, Report, Wanted},
    state::StateFolder,
};

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Find any change of the log: a changed, removed, added or moved record, a missing file, a cut end.
    Verify {
        /// The state folder of the control plane.
        #[arg(long, env = "DOUANE_DIR", required_unless_present = "log")]
        dir: Option<PathBuf>,
        /// A folder of audit files, or one file, instead of that of the state folder.
        #[arg(long)]
        log: Option<PathBuf>,
        /// A head that was kept elsewhere (NUMBER:HASH, from the control plane's own log): what is older is held to it.
        #[arg(long)]
        head: Option<Head>,
        /// How to print.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Print records, one JSON object a line.
    List {
        /// The state folder of the control plane.
        #[arg(long, env = "DOUANE_DIR", required_unless_present = "log")]
        dir: Option<PathBuf>,
        /// A folder of audit files instead of that of the state folder.
        #[arg(long)]
        log: Option<PathBuf>,
        /// Only of this identity: NAMESPACE/SERVICE-ACCOUNT, or a SPIFFE ID.
        #[arg(long)]
        identity: Option<String>,
        /// Only what is not older: such as 2h or 7d.
        #[arg(long, value_parser = humantime::parse_duration)]
        since: Option<Duration>,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(super) fn run(command: Audit) -> Result<ExitCode> {
    match command {
        Audit::Verify { dir, log, head, output } => {
            let logs = places(dir, log)?;
            if head.is_some() && logs.len() > 1 {
                bail!("several replicas have each a log of their own: say by --log which one the head is of");
            }
            let mut whole = true;
            for path in &logs {
                let report = audit::verify(path, head)
                    .with_context(|| format!("read the audit log in {}", path.display()))?;
                whole &= report.faults.is_empty();
                if logs.len() > 1 && output == Output::Text {
                    print_text(&format!("{}:\n", path.display()))?;
                }
                match output {
                    Output::Text => print_text(&text(&report))?,
                    Output::Json => print(&json(&report))?,
                }
            }
            Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Audit::List { dir, log, identity, since } => {
            let wanted = Wanted {
                identity: identity.map(|identity| whole_identity(&identity)).transpose()?,
                since: since.and_then(|since| SystemTime::now().checked_sub(since)),
            };
            let mut closed = Ok(());
            for path in places(dir, log)? {
                audit::matching(&path, &wanted, |record| {
                    if closed.is_ok() {
                        closed = print_text(&format!("{record}\n"));
                    }
                })
                .with_context(|| format!("read the audit log in {}", path.display()))?;
            }
            closed.map(|()| ExitCode::SUCCESS)
        }
    }
}

// Each replica writes its own.
fn places(dir: Option<PathBuf>, log: Option<PathBuf>) -> Result<Vec<PathBuf>> {
    if let Some(log) = log {
        return Ok(vec![log]);
    }
    let folder = StateFolder::new(dir.ok_or_else(|| anyhow!("give the state folder with --dir"))?);
    let logs = folder.audits();
    // Where there is none, reading the first says so.
    Ok(if logs.is_empty() { vec![folder.audit()] } else { logs })
}

// Records hold whole SPIFFE IDs; one of ours ends in its two names.
fn whole_identity(text: &str) -> Result<String> {
    if text.starts_with("spiffe://") {
        return Ok(text.to_owned());
    }
    let (namespace, account) = text
        .split_once('/')
        .ok_or_else(|| anyhow!("--identity is NAMESPACE/SERVICE-ACCOUNT or a SPIFFE ID"))?;
    Ok(format!("/ns/{namespace}/sa/{account}"))
}

fn text(report: &Report) -> String {
    let mut text: String = report.faults.iter().map(|fault| format!("{fault}\n")).collect();
    text.extend(report.notes.iter().map(|note| format!("note: {note}\n")));
    let head = report.head.map_or_else(|| "none".to_owned(), |head| head.to_string());
    let verdict = match report.faults.len() {
        0 => "the log is whole".to_owned(),
        1 => "THE LOG IS NOT WHOLE: 1 fault".to_owned(),
        many => format!("THE LOG IS NOT WHOLE: {many} faults"),
    };
    text.push_str(&format!(
        "{verdict}; {} records from {} on in {} files; head {head}\n",
        report.records, report.first, report.files
    ));
    text
}

fn json(report: &Report) -> String {
    let faults: Vec<_> = report
        .faults
        .iter()
        .map(|fault| json!({"file": fault.file, "line": fault.line, "what": fault.what}))
        .collect();
    json!({
        "whole": report.faults.is_empty(),
        "faults": faults,
        "notes": report.notes,
        "files": report.files,
        "records": report.records,
        "first": report.first,
        "head": report.head.map(|head| head.to_string()),
    })
    .to_string()
}
