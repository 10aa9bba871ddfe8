//! `douane policy ...`: the operator's commands for policies, one file each.
//!
//! They know flags, streams and exit codes: 0 is yes, 1 is no, 2 is a question that cannot be answered. What is asked is
//! answered by `crate::policy`.

mod answer;
mod ask;
mod diff;
mod lint;
mod settings;
mod suggest;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::policy::question::Depth;

#[derive(Subcommand)]
pub(super) enum Policy {
    /// Say what is wrong with policies, and what surely is not meant.
    #[command(after_long_help = lint::HELP)]
    Lint(lint::Lint),
    /// Run unit tests of policies.
    #[command(after_long_help = test::HELP)]
    Test(test::Test),
    /// Say whether a request would be allowed.
    #[command(after_long_help = ask::CAN_I_HELP)]
    CanI(Box<ask::Ask>),
    /// Say why a request would be allowed or denied, policy by policy.
    #[command(after_long_help = ask::EXPLAIN_HELP)]
    Explain(Box<ask::Ask>),
    /// Say which recorded requests would become something else.
    #[command(after_long_help = diff::HELP)]
    Diff(diff::Diff),
    /// Write least-privilege policies from what was observed.
    #[command(after_long_help = suggest::HELP)]
    Suggest(suggest::Suggest),
}

/// Does what was asked for.
pub(super) fn run(policy: Policy) -> ExitCode {
    answered(policy).unwrap_or_else(|error| answer::unanswered(&format!("{error:#}")))
}

fn answered(policy: Policy) -> Result<ExitCode> {
    match policy {
        Policy::Lint(asked) => lint::run(&asked),
        Policy::Test(asked) => test::run(&asked),
        Policy::CanI(asked) => ask::run(&asked, Depth::Verdict),
        Policy::Explain(asked) => ask::run(&asked, Depth::Policies),
        Policy::Diff(asked) => diff::run(&asked),
        Policy::Suggest(asked) => suggest::run(&asked),
    }
}
