//! The API server: HTTP in front, the store behind, and between them authentication, authorization, admission and one
//! implementation of every verb for every resource. [`server::Server`] is its state, [`http::serve::serve`] its front,
//! [`local::LocalApi`] the same front without a network.

pub mod admission;
pub mod aggregator;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod cache;
pub mod catalog;
pub mod compaction;
pub mod components;
pub mod conversion;
pub mod crd;
pub mod csr;
mod der;
pub mod discovery;
pub mod encryption;
pub mod flowcontrol;
pub mod fresh;
pub mod handlers;
pub mod health;
pub mod http;
pub mod local;
pub mod masters;
pub mod metrics;
mod node_ports;
pub mod node_proxy;
pub mod notes;
pub mod openapi;
pub mod outgoing;
pub mod pki;
pub mod port_range;
pub mod reload;
mod remembered;
pub mod request_info;
mod reviews;
pub mod runtime_config;
pub mod served;
pub mod server;
pub mod service_ips;
pub mod settings;
pub mod storage;
mod strict;
pub mod surroundings;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod traces;
pub mod user;

pub use local::LocalApi;
pub use server::Server;
pub use settings::Settings;
pub use user::User;
