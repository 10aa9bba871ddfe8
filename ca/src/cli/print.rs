//! What a command prints.

use std::io::{self, Write as _};

use anyhow::{Context, Result};

/// A line on the standard output.
pub(super) fn print(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("write to stdout")
}

/// Text on the standard output as it is. Who reads no further (`| head`) has read enough: that is no error.
pub(super) fn print_text(text: &str) -> Result<()> {
    match write!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to stdout"),
    }
}

/// A line for the operator beside the answer.
pub(super) fn remark(line: &str) {
    // A reader that closed our stderr cannot be told anything.
    let _ = writeln!(io::stderr(), "{line}");
}
