//! `douane check`: is a cluster fit for the mesh, and does the mesh do its work? Each finding says what, why, and the command
//! that mends it.
//!
//! Knows flags, text and exit codes; what is found is `check`'s.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::print::{print, print_text};
use crate::{
    check::{self, Finding, Level, Stage, kubernetes::read, worst},
    config::Kubernetes,
    kubernetes,
};

#[derive(Args)]
#[command(
    after_help = "Ends with 0 when all is well, with 1 on an error, with 2 when there are warnings only.\n\n\
    Examples:\n  douane check --pre\n  douane check\n  douane check -o json | jq '.findings[] | select(.level != \"ok\")'"
)]
pub(super) struct Check {
    /// Before an installation: may it be done here?
    #[arg(long)]
    pre: bool,
    /// How it is printed; the names in json stay.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// A kubeconfig [default: KUBECONFIG, then ~/.kube/config, then the pod's own service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Which context of it [default: its current one].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

pub(super) fn check(asked: &Check) -> Result<ExitCode> {
    let kubeconfig = asked.kubeconfig.clone().or_else(usual_kubeconfig);
    let access = Kubernetes { kubeconfig, context: asked.context.clone(), ..Kubernetes::default() };
    let stage = if asked.pre { Stage::Before } else { Stage::Running };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let facts = runtime.block_on(async {
        let client = kubernetes::client(&access).await?;
        anyhow::Ok(read(&client, stage, progress).await)
    })?;
    progress("");
    let findings = check::judge(&facts, stage);
    match asked.output {
        Form::Text => print_text(&text(&findings))?,
        Form::Json => {
            print(&serde_json::json!({ "findings": findings, "worst": worst(&findings) }).to_string())?;
        }
    }
    Ok(match worst(&findings) {
        Level::Ok => ExitCode::SUCCESS,
        Level::Error => ExitCode::FAILURE,
        Level::Warning => ExitCode::from(2),
    })
}

// As kubectl finds it; of several files in the variable the first.
fn usual_kubeconfig() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").and_then(|all| std::env::split_paths(&all).next());
    let home = || std::env::home_dir().map(|home| home.join(".kube/config"));
    named.filter(|path| !path.as_os_str().is_empty()).or_else(home).filter(|path| path.exists())
}

// One line that is written over, for a human who waits.
fn progress(what: &str) {
    let mut out = io::stderr();
    if out.is_terminal() {
        let line = if what.is_empty() { String::new() } else { format!("looking at {what} ...") };
        // A closed terminal needs no progress.
        let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut group = "";
    for finding in findings {
        if finding.group != group {
            group = finding.group;
            text.push_str(&format!("{group}\n"));
        }
        let mark = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        text.push_str(&format!("  {mark:<8} {} [{}]\n", visible(&finding.what), finding.check));
        for (word, said) in [("why", &finding.why), ("mend", &finding.mend)] {
            if !said.is_empty() {
                text.push_str(&format!("           {word}: {}\n", visible(said)));
            }
        }
    }
    text
}

// Objects of the cluster are somebody else's words: none of them moves the terminal's cursor.
fn visible(said: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    said.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use crate::check::{Facts, Kind};

    use super::*;

    #[test]
    fn a_finding_says_what_why_and_what_mends_it() {
        let mut facts = Facts { version: Some(Ok("v1.28.0".to_owned())), ..Facts::default() };
        facts.objects.insert(Kind::Nodes, Ok(Vec::new()));
        let said = text(&check::judge(&facts, Stage::Before));
        assert!(
            said.starts_with("api\n  ERROR    Kubernetes v1.28.0 has no native sidecars [api.version]\n"),
            "{said}"
        );
        assert!(said.contains("\n           why: ") && said.contains("\n           mend: upgrade"), "{said}");
    }

    #[test]
    fn what_an_object_of_the_cluster_says_does_not_move_the_cursor() {
        assert_eq!(visible("shop/a: \u{1b}[2Jé\n"), "shop/a: \\u{1b}[2Jé\\n");
    }
}
