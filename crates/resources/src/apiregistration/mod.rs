//! `apiregistration.k8s.io`.

pub mod apiservice;
