//! The group `apps`, version `v1`.

pub mod deployment;
pub mod replicaset;
pub mod workload;
