//! What the proxy is asked to do, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// An address family; each has its own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: &IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn of_net(net: &IpNet) -> Family {
        Family::of(&net.addr())
    }
}

/// A Service's protocol, printed as nft spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// One port of one Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortKey {
    pub namespace: String,
    pub name: String,
    /// Empty for a nameless port.
    pub port_name: String,
    pub protocol: Protocol,
}

/// How a Service port is reached and what is behind it. Addresses of both families may be mixed; each table takes its
/// own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub cluster_ips: Vec<IpAddr>,
    pub port: u16,
    /// 0 for none.
    pub node_port: u16,
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress` addresses whose `ipMode` is VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Sources admitted to the load balancer addresses; empty for all.
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// Session affinity ClientIP with this time-out in seconds.
    pub affinity_seconds: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint address and port. The conditions are those of an EndpointSlice, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// It is on this node.
    pub local: bool,
    pub zone_hints: BTreeSet<String>,
    pub node_hints: BTreeSet<String>,
}

impl Endpoint {
    /// A ready endpoint elsewhere, without hints.
    pub fn ready(ip: IpAddr, port: u16) -> Endpoint {
        Endpoint {
            ip,
            port,
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            zone_hints: BTreeSet::new(),
            node_hints: BTreeSet::new(),
        }
    }
}

impl ServicePort {
    /// Whether anything but a cluster IP leads here.
    pub fn externally_accessible(&self) -> bool {
        self.node_port != 0 || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    /// Whether all endpoints matter: by a Cluster policy, or since traffic from inside the cluster to an external
    /// address isn't subject to its Local policy.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.externally_accessible())
    }
}

/// What holds for all Services on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyConfig {
    /// Families to serve; a table each.
    pub families: BTreeSet<Family>,
    /// All pods' addresses (the cluster CIDRs): traffic from elsewhere to a cluster IP is masqueraded. Empty: unknown,
    /// and nothing is masqueraded for that reason.
    pub cluster_cidrs: Vec<IpNet>,
    /// All cluster IPs; traffic to one that isn't allocated is dropped.
    pub service_cidrs: Vec<IpNet>,
    /// Masquerade everything sent to a cluster IP.
    pub masquerade_all: bool,
    /// Masquerade what pods send out of the cluster.
    pub masquerade_outbound: bool,
    /// Addresses of this node that answer on node ports; `None` for all but loopback.
    pub node_port_ips: Option<BTreeSet<IpAddr>>,
    /// This node's addresses.
    pub node_ips: Vec<IpAddr>,
    pub node_name: String,
    /// This node's `topology.kubernetes.io/zone`, or empty.
    pub zone: String,
}

/// Everything the proxy should do. Values are shared, so that two states compare quickly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyState {
    pub config: Arc<ProxyConfig>,
    pub services: BTreeMap<ServicePortKey, Arc<ServicePort>>,
}
