//! What the benchmarks of whole clusters share: the real binary on a host of its own, a load generator that costs
//! little, and figures as JSON lines.

pub mod client;
pub mod cluster;
pub mod load;
pub mod objects;
pub mod report;
pub mod usage;
pub mod watching;

pub use client::Connection;
pub use cluster::Bench;
pub use report::{Report, Samples};

use anyhow::Result;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a benchmark on one thread, so that the load generator never takes more than one core.
pub fn run(bench: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    // One provider for every TLS connection of the process; a second call could only come from here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(bench())
}

/// How long one load or one observation lasts: `CANOPUS_BENCH_SECONDS`, or what the benchmark takes by itself.
pub fn seconds(default: u64) -> Duration {
    let set = std::env::var("CANOPUS_BENCH_SECONDS").ok().and_then(|text| text.parse::<f64>().ok());
    set.map_or(Duration::from_secs(default), Duration::from_secs_f64)
}

/// Progress, for people: standard output is for figures.
#[macro_export]
macro_rules! progress {
    ($($arg:tt)*) => { eprintln!("  {}", format_args!($($arg)*)) };
}
