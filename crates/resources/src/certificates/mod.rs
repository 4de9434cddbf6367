//! `certificates.k8s.io`.

mod issued;
mod keys;
pub(crate) mod pkcs;

pub mod certificatesigningrequest;
pub mod clustertrustbundle;
pub mod podcertificaterequest;
