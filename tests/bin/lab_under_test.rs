//! The lab as a program that tests can start: the same doors as `lab`, built beside them.

use std::process::ExitCode;

fn main() -> ExitCode {
    douane_examples::main(std::env::args_os())
}
