//! `admissionregistration.k8s.io`.

pub mod expressions;
pub mod mutatingadmissionpolicy;
pub mod mutatingadmissionpolicybinding;
pub mod mutatingwebhookconfiguration;
pub mod policy;
pub mod rule;
pub mod typecheck;
mod typed;
pub mod validatingadmissionpolicy;
pub mod validatingadmissionpolicybinding;
pub mod validatingwebhookconfiguration;
pub mod webhook;
