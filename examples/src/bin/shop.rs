//! The shop's applications as a program of their own, for a container image.

use std::process::ExitCode;

fn main() -> ExitCode {
    douane_examples::apps::main(std::env::args_os())
}
