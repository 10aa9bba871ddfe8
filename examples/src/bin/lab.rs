//! The lab, and every role that it plays by executing itself again.

use std::process::ExitCode;

fn main() -> ExitCode {
    douane_examples::lab::cli::main(std::env::args_os())
}
