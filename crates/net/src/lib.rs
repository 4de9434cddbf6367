//! The node's network: pod network, service proxy and cluster DNS.
//!
//! Each part is a pure model with a renderer (plain values in, a plan out) and a thin applier that talks to the
//! kernel. Nothing here knows Kubernetes objects except the modules named `feed`.

pub mod dns;
mod feed;
pub mod netlink;
pub mod netns;
pub mod podnetwork;
pub mod proxy;
