//! How commands answer: as text or JSON, and by an exit code.

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::print::{print_text, remark};

/// The answer is yes: all as expected, nothing wrong, nothing changed.
pub(super) const YES: u8 = 0;
/// The answer is no.
pub(super) const NO: u8 = 1;
/// There is no answer: a file that cannot be read, a question that makes no sense.
const NO_ANSWER: u8 = 2;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For a human.
    Text,
    /// One JSON object.
    Json,
}

/// Why there is no answer; the exit code says so as well.
pub(super) fn unanswered(error: &dyn std::fmt::Display) -> ExitCode {
    remark(&format!("douane: {error}"));
    ExitCode::from(NO_ANSWER)
}

/// An answer as one JSON object.
pub(super) fn print_json(answer: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(answer).context("write JSON")?;
    print_text(&format!("{text}\n"))
}

/// Seconds since 1970.
pub(super) fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_secs())
}
