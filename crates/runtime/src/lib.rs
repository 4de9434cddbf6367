pub mod layer;
pub mod snapshots;
