//! apiextensions.k8s.io/v1.

pub mod conditions;
pub mod customresourcedefinition;
mod rules;
mod schema;
mod structural;
