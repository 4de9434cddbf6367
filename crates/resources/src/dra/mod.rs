//! `resource.k8s.io`: devices that drivers offer and pods claim (KEP-4381).

pub mod device;
mod request;
mod rules;
pub mod selector;
mod status;

pub mod deviceclass;
pub mod devicetaintrule;
pub mod resourceclaim;
pub mod resourceclaimtemplate;
pub mod resourcepoolstatusrequest;
pub mod resourceslice;
pub mod v1beta1;
