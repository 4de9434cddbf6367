//! `rbac.authorization.k8s.io`: who may do what.

mod binding;
pub mod clusterrole;
pub mod clusterrolebinding;
pub mod role;
pub mod rolebinding;
mod rule;

/// The group's name.
pub const GROUP: &str = "rbac.authorization.k8s.io";
