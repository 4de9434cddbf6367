//! `metadata.managedFields`: who owns which field, and server-side apply (KEP-555), as structured-merge-diff v6 has them.

pub mod set;

pub use set::Set;
