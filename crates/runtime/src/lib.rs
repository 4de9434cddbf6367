//! The container runtime behind a node: sandboxes and containers on the kernel's own primitives,
//! and the snapshots their root file systems are made of.
//!
//! Synchronous, and ignorant of Kubernetes and of how images are fetched. Three kinds of process:
//!
//! * the caller's, with a [`Runtime`]: decides, writes state files, asks shims;
//! * a shim per pod ([`shim`]): holds namespaces, is the containers' parent, outlives the caller;
//! * runtime children ([`child`]): short-lived, where libcontainer makes containers.

// The shim alone needs less of what it shares with the rest.
#![cfg_attr(not(feature = "runtime"), allow(dead_code))]

pub mod cgroups;
#[cfg(feature = "runtime")]
pub mod child;
#[cfg(feature = "runtime")]
mod client;
pub mod error;
#[cfg(feature = "runtime")]
mod host;
#[cfg(feature = "runtime")]
pub mod layer;
#[cfg(feature = "runtime")]
pub mod oci;
pub mod proto;
#[cfg(feature = "runtime")]
mod runtime;
pub mod shim;
#[cfg(feature = "runtime")]
pub mod snapshots;
pub mod spec;
mod state;
pub mod tty;
mod verb;

#[cfg(feature = "runtime")]
pub use child::dispatch_child;
pub use error::{Error, Result};
pub use proto::{Code, Exit};
#[cfg(feature = "runtime")]
pub use runtime::{
    AttachSession, Config, ContainerState, ContainerStatus, ExecSession, Runtime, RuntimeEvent, SandboxState,
    SandboxStatus, Signalled,
};
