//! The sidecar's process. Everything is in the library: `cli` reads what was asked, `app` does it.

use std::process::ExitCode;

fn main() -> ExitCode {
    douane_proxy::cli::main(std::env::args_os())
}
