//! API priority and fairness (KEP-1040): which requests are what, and how many of them are handled at once.

pub mod bootstrap;
pub mod flowschema;
pub mod prioritylevelconfiguration;

/// Annotation of the objects that every cluster has: whether the server keeps them up to date.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
