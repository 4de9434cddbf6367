//! Tests against the kernel, each in network namespaces of its own. They need root.

mod cluster;
mod feed;
mod hosts;
mod podnetwork;
mod proxy;
