//! The lab, and every role that it plays by executing itself again.

use std::process::ExitCode;

use douane_examples::{demo, lab::cli};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), demo::run)
}
