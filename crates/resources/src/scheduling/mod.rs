//! `scheduling.k8s.io`.

pub mod podgroup;
pub mod priorityclass;
pub mod workload;
