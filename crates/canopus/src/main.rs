//! Canopus: Kubernetes in one binary. The commands are in [`cli`].

mod cli;
mod up;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The container runtime clones and changes process-wide state, so its work runs in a fresh copy of this binary that
    // must not have a second thread.
    if let Some(code) = canopus_runtime::dispatch_child() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    cli::main()
}
