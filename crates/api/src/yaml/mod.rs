//! YAML to and from [`Value`] trees, typed as sigs.k8s.io/yaml types it: YAML 1.1 scalars, JSON's value space.

mod parse;
mod scalar;
mod write;

pub use parse::{Document, Error, parse, parse_documents};
pub use write::to_yaml;
