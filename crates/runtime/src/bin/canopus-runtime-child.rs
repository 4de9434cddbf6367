//! A program that is nothing but a runtime child, for tests.

fn main() {
    match canopus_runtime::dispatch_child() {
        Some(code) => std::process::exit(code),
        None => {
            eprintln!("this program is started by canopus-shim");
            std::process::exit(2)
        }
    }
}
