//! apiextensions.k8s.io/v1.

pub mod conditions;
pub mod customresourcedefinition;
mod expressions;
mod rules;
mod schema;
mod structural;
