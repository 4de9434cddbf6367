//! The node agent: keeps the pods bound to one node running on the embedded runtime, and tells the API about them.
//!
//! A pure [`planner`] decides for each pod, a worker does it; [`status`] is what the API is told.

pub mod planner;
pub mod pod;
pub mod volumes;
