//! `internal.apiserver.k8s.io`.

pub mod storageversion;
