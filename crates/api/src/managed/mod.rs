//! `metadata.managedFields`: who owns which field, and server-side apply (KEP-555), as structured-merge-diff v6 has them.

mod apply;
mod delta;
mod entry;
mod list;
mod merge;
mod reset;
mod scale;
pub mod set;
mod shapes;
mod typed;
mod update;

pub use delta::Delta;
pub use entry::{Entry, Error, Operation, validate};
pub use merge::merge;
pub use reset::Reset;
pub use scale::{ReplicasPaths, parent_managed_fields, scale_managed_fields};
pub use set::Set;
pub use update::{FieldManager, OneVersion, Versions, keep_times_if_unchanged};

#[cfg(test)]
mod tests;
