//! `certificates.k8s.io`.

mod pkcs;

pub mod certificatesigningrequest;
pub mod clustertrustbundle;
