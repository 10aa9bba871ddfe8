//! The control plane as a program that tests can start and kill: the same doors as `douane`, built beside them.

use std::process::ExitCode;

fn main() -> ExitCode {
    douane_ca::cli::main(std::env::args_os())
}
