//! The scheduler: gives every pod without a node the best node it fits on (upstream `pkg/scheduler`).
//!
//! [`queue`] says which pod is next, [`cache`] what the nodes hold, [`plugins`] which nodes a pod fits on and which
//! are best, [`cycle`] puts those together as a pure function; [`run`] follows the API and binds.

mod batch;
pub mod cache;
pub mod cycle;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod run;
pub mod selector;
#[cfg(test)]
mod testing;

pub use run::{Config, run};
