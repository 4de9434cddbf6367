//! The cluster's DNS server: authoritative for the cluster's domain, forwarding everything else.
//!
//! [`Zone`] holds what Services contribute, [`answer()`] is a pure function of it, [`Resolver`] adds upstream servers
//! and their answers' cache, [`DnsServer`] the sockets.

mod answer;
mod cache;
mod feed;
mod forward;
mod resolv;
mod server;
mod wire;
mod zone;

#[cfg(test)]
mod tests;

pub use answer::{Answer, TTL, answer};
pub use feed::{Config, publish, run};
pub use forward::Forwarder;
pub use resolv::upstreams;
pub use server::{DnsServer, Resolver};
pub use zone::{Endpoint, Port, Service, Zone};
