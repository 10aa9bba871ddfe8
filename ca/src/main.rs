//! The binary `douane`. Everything is in the library, so that other programs can play its role.

use std::process::ExitCode;

// A certificate makes and frees some hundreds of small things, on threads that hand them to each other. The C library's
// allocator takes a twelfth of it for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    douane_ca::cli::main(std::env::args_os())
}
