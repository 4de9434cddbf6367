//! `certificates.k8s.io`.

mod issued;
mod keys;
mod pkcs;

pub mod certificatesigningrequest;
pub mod clustertrustbundle;
pub mod podcertificaterequest;
