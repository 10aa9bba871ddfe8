//! The sidecar's process. Everything is in the library: `cli` reads what was asked, `app` does it.

use std::process::ExitCode;

// A request makes and frees some fifty small things. The C library's allocator pays for each large one with a walk over all
// that was freed (measured: a tenth of a request), and keeps what it was given once. No huge pages: they would be most of
// what an idle sidecar holds.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    douane_proxy::cli::main(std::env::args_os())
}
