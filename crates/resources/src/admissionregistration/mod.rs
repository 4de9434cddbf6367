//! `admissionregistration.k8s.io`.

pub mod mutatingwebhookconfiguration;
pub mod rule;
pub mod validatingwebhookconfiguration;
pub mod webhook;
