//! `resource.k8s.io/v1`: devices that drivers offer and pods claim (KEP-4381).

mod device;
mod request;
mod rules;
pub mod selector;
mod status;

pub mod deviceclass;
pub mod resourceclaim;
pub mod resourceclaimtemplate;
pub mod resourceslice;
