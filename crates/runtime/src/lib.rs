//! The container runtime behind a node: sandboxes and containers on the kernel's own primitives,
//! and the snapshots their root file systems are made of.
//!
//! Synchronous, and ignorant of Kubernetes and of how images are fetched. Three kinds of process:
//!
//! * the caller's, with a [`Runtime`]: decides, writes state files, asks shims;
//! * a shim per pod ([`shim`]): holds namespaces, is the containers' parent, outlives the caller;
//! * runtime children ([`child`]): short-lived, where libcontainer makes containers.

pub mod cgroups;
pub mod child;
mod client;
pub mod error;
mod host;
pub mod layer;
pub mod oci;
pub mod proto;
mod runtime;
pub mod shim;
pub mod snapshots;
pub mod spec;
mod state;
pub mod tty;

pub use child::dispatch_child;
pub use error::{Error, Result};
pub use proto::{Code, Exit};
pub use runtime::{
    AttachSession, Config, ContainerState, ContainerStatus, ExecSession, Runtime, RuntimeEvent, SandboxState,
    SandboxStatus,
};
