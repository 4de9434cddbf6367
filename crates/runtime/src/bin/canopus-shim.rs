//! The process behind each pod: see `canopus_runtime::shim`.

fn main() {
    std::process::exit(canopus_runtime::shim::main(std::env::args_os()))
}
