//! The group `batch`, version `v1`.

pub mod cronjob;
pub mod job;
