//! Clusters for end-to-end tests: the real binary in a network namespace of its own, driven by the real kubectl. And
//! clusters without hosts: a control plane in this process ([`ControlPlane`]) and nodes that only say they run pods
//! ([`SimulatedNodes`]).

mod cluster;
pub mod control_plane;
mod host;
pub mod leaks;
pub mod nodes;
mod stream;

pub use cluster::{Cluster, Output, run};
pub use control_plane::ControlPlane;
pub use host::Host;
pub use nodes::SimulatedNodes;
pub use stream::Stream;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Tries until `attempt` succeeds; panics with the last reason after `patience`.
#[track_caller]
pub fn eventually<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > patience => panic!("after {patience:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A tool that `make setup` puts in place: `CANOPUS_TOOLS/name`.
///
/// # Panics
/// With what to do, when it is not there.
pub fn tool(name: &str) -> PathBuf {
    let Some(dir) = std::env::var_os("CANOPUS_TOOLS") else {
        panic!("CANOPUS_TOOLS is not set: run the tests by `make test`");
    };
    let path = PathBuf::from(dir).join(name);
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}
