//! What a command prints.

use std::io::Write as _;

use anyhow::{Context, Result};

/// A line on the standard output.
pub(super) fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("write to stdout")
}

/// Text on the standard output as it is.
pub(super) fn print_text(text: &str) -> Result<()> {
    write!(std::io::stdout(), "{text}").context("write to stdout")
}

/// A line for the operator beside the answer.
pub(super) fn remark(line: &str) {
    // A reader that closed our stderr cannot be told anything.
    let _ = writeln!(std::io::stderr(), "{line}");
}
