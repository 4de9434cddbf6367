//! The group `policy`, version `v1`.

pub mod poddisruptionbudget;
