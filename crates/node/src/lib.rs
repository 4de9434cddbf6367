//! The node agent: keeps the pods bound to one node running on the embedded runtime, and tells the API about them.
//!
//! A pure [`planner`] decides for each pod, a worker does it; [`status`] is what the API is told. After a restart the
//! agent finds everything again from the runtime's labels; ending it stops no container.

mod admission;
mod agent;
mod container;
mod devices;
pub mod env;
pub mod eviction;
mod mounts;
mod node;
mod node_status;
mod observe;
mod open;
pub mod planner;
pub mod pod;
mod probes;
pub mod registration;
mod server;
mod sources;
mod start;
pub mod status;
mod tls;
pub mod volumes;
mod worker;

pub use agent::{Config, Server, run};

/// Why the agent, or its work for one pod, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] canopus_api::Status),
    #[error(transparent)]
    Runtime(#[from] canopus_runtime::Error),
    #[error(transparent)]
    Images(#[from] canopus_images::ImageError),
    #[error(transparent)]
    Network(#[from] canopus_net::podnetwork::PodNetworkError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Volume(String),
    #[error("the work was interrupted")]
    Interrupted,
}
