//! The node's network: pod network, service proxy and cluster DNS.
//!
//! Each part is a pure model with a renderer (plain values in, a plan out) and a thin applier that talks to the
//! kernel. Nothing here knows Kubernetes objects except the modules named `feed`, in which a pure `translate` makes
//! values of them and a loop keeps the model in step with the API:
//!
//! - [`podnetwork::PodNetwork`] is called by the node: it attaches pods to a bridge.
//! - [`proxy::run`] serves Services, [`dns::run`] their names. Both follow Services and EndpointSlices and look only at
//!   what changed.
//! - [`dns::publish`] makes the DNS server, which needs no pod, reachable at the DNS Service's cluster IP. A pod's
//!   question goes to that address, the proxy leads it to the node's own address and the port where the server
//!   listens, and the response is translated back. So the server listens on a node's address, on a port that nobody
//!   else wants; never on a wildcard address.

pub mod dns;
mod feed;
pub mod netlink;
pub mod netns;
pub mod podnetwork;
pub mod proxy;
