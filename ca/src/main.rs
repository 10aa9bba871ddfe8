//! The binary `douane`. Everything is in the library, so that other programs can play its role.

use std::process::ExitCode;

fn main() -> ExitCode {
    douane_ca::cli::main(std::env::args_os())
}
