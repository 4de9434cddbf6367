//! The group `autoscaling`: `v2`, and `v1`, which knows only of processors and keeps the rest in annotations.

pub mod convert;
pub mod metrics;
pub mod v1;
pub mod v2;
