//! Tests against the kernel, each in network namespaces of its own. They need root.

mod hosts;
mod podnetwork;
mod proxy;
