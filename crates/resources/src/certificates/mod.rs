//! `certificates.k8s.io/v1`.

mod pkcs;

pub mod certificatesigningrequest;
