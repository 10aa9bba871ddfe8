//! The lab as a program that tests can start: the same doors as `lab`, built beside them.

use std::process::ExitCode;

use douane_examples::{demo, lab::cli};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), demo::run)
}
