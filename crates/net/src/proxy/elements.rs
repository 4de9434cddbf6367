//! The map and set elements that make up a Service port.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::base::remembers;
use super::marks::{EXTERNAL, EXTERNAL_LOCAL, Hex, INTERNAL};
use super::state::{Family, Protocol, ProxyConfig, ServicePort};
use super::topology::usable;

/// An address, protocol and port to which traffic is sent.
pub type Frontend = (IpAddr, Protocol, u16);

/// An element of a map or set of the table; the order is that of rendering.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    ClusterIp(IpAddr),
    ServiceIp(Frontend),
    NodePort(Protocol, u16),
    NoEndpointService(Frontend),
    NoEndpointNodePort(Protocol, u16),
    Firewall(Frontend),
    FirewallSource(u32, IpNet),
    Hairpin(Frontend),
    Pool(u32),
    AffinityPool(u32),
    Endpoint(u32, u32),
}

/// What a map holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The element of a set.
    Member,
    Mark(u32),
    /// Balance over this many endpoints, by the client's affinity first if so said.
    Pick {
        endpoints: u32,
        sticky: bool,
    },
    /// Remember the chosen endpoint for this many seconds.
    Remember(u32),
    Reject,
    Drop,
    Address(IpAddr, u16),
}

impl Key {
    /// The map or set it belongs to.
    pub fn container(&self) -> &'static str {
        match self {
            Key::ClusterIp(_) => "cluster-ips",
            Key::ServiceIp(_) => "service-ips",
            Key::NodePort(..) => "service-nodeports",
            Key::NoEndpointService(_) => "no-endpoint-services",
            Key::NoEndpointNodePort(..) => "no-endpoint-nodeports",
            Key::Firewall(_) => "firewall-ips",
            Key::FirewallSource(..) => "firewall-sources",
            Key::Hairpin(_) => "hairpin-connections",
            Key::Pool(_) => "pools",
            Key::AffinityPool(_) => "affinity-pools",
            Key::Endpoint(..) => "endpoints",
        }
    }

    /// Whether several Services may want the same key: an external address claimed twice, a pod behind two Services.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Key::Pool(_) | Key::AffinityPool(_) | Key::Endpoint(..) | Key::FirewallSource(..))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::ClusterIp(ip) => write!(f, "{ip}"),
            Key::ServiceIp((ip, protocol, port))
            | Key::NoEndpointService((ip, protocol, port))
            | Key::Firewall((ip, protocol, port)) => write!(f, "{ip} . {protocol} . {port}"),
            Key::NodePort(protocol, port) | Key::NoEndpointNodePort(protocol, port) => {
                write!(f, "{protocol} . {port}")
            }
            Key::FirewallSource(pool, net) => write!(f, "{} . {net}", Hex(*pool)),
            Key::Hairpin((ip, protocol, port)) => write!(f, "{ip} . {ip} . {protocol} . {port}"),
            Key::Pool(pool) | Key::AffinityPool(pool) => write!(f, "{}", Hex(*pool)),
            Key::Endpoint(pool, slot) => write!(f, "{} . {slot}", Hex(*pool)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Member => Ok(()),
            Value::Mark(mark) => write!(f, " : {}", Hex(*mark)),
            Value::Pick { endpoints, sticky: false } => write!(f, " : goto pick-{endpoints}"),
            Value::Pick { endpoints, sticky: true } => write!(f, " : goto sticky-{endpoints}"),
            Value::Remember(seconds) => write!(f, " : jump remember-{seconds}"),
            Value::Reject => f.write_str(" : goto reject-chain"),
            Value::Drop => f.write_str(" : drop"),
            Value::Address(ip, port) => write!(f, " : {ip} . {port}"),
        }
    }
}

/// The pool of a Service port for the Cluster policy; that for the Local policy is the next number.
pub fn cluster_pool(id: u32) -> u32 {
    id * 2
}

/// All elements of a Service port in one family's table. `id` is the number it goes by, from 1.
pub fn elements(
    id: u32,
    protocol: Protocol,
    service: &ServicePort,
    config: &ProxyConfig,
    family: Family,
) -> BTreeMap<Key, Value> {
    let mut out = BTreeMap::new();
    let ours = |ips: &[IpAddr]| ips.iter().copied().filter(|ip| Family::of(ip) == family).collect::<Vec<_>>();
    let (cluster_ips, load_balancer_ips) = (ours(&service.cluster_ips), ours(&service.load_balancer_ips));
    if cluster_ips.is_empty() {
        // The Service is not of this family.
        return out;
    }
    let usable = usable(service, config, family);
    let (cluster, local) = (cluster_pool(id), cluster_pool(id) + 1);
    add_pool(&mut out, cluster, &usable.cluster, service.affinity_seconds);
    if service.uses_local_endpoints() {
        add_pool(&mut out, local, &usable.local, service.affinity_seconds);
    }
    for (ip, port) in usable.on_this_node {
        out.insert(Key::Hairpin((ip, protocol, port)), Value::Member);
    }

    // No endpoint anywhere is refused at once; endpoints only elsewhere, where the policy says Local, are no answer.
    let refusal = |local_policy: bool| match (usable.any, local_policy) {
        (false, _) => Some(Value::Reject),
        (true, true) if usable.local.is_empty() => Some(Value::Drop),
        (true, false) if usable.cluster.is_empty() => Some(Value::Drop),
        (true, _) => None,
    };
    for ip in cluster_ips {
        let frontend = (ip, protocol, service.port);
        out.insert(Key::ClusterIp(ip), Value::Member);
        match refusal(service.internal_local) {
            Some(verdict) => out.insert(Key::NoEndpointService(frontend), verdict),
            None => {
                let pool = if service.internal_local { local } else { cluster };
                out.insert(Key::ServiceIp(frontend), Value::Mark(pool | INTERNAL))
            }
        };
    }
    let external = if service.external_local { local | EXTERNAL_LOCAL } else { cluster | EXTERNAL };
    let refused = refusal(service.external_local);
    for ip in ours(&service.external_ips).into_iter().chain(load_balancer_ips.iter().copied()) {
        let frontend = (ip, protocol, service.port);
        if usable.any {
            out.insert(Key::ServiceIp(frontend), Value::Mark(external));
        }
        if let Some(verdict) = refused.clone() {
            out.insert(Key::NoEndpointService(frontend), verdict);
        }
    }
    if service.node_port != 0 {
        if usable.any {
            out.insert(Key::NodePort(protocol, service.node_port), Value::Mark(external));
        }
        if let Some(verdict) = refused {
            out.insert(Key::NoEndpointNodePort(protocol, service.node_port), verdict);
        }
    }
    add_firewall(&mut out, id, protocol, service, config, &load_balancer_ips);
    out
}

fn add_pool(out: &mut BTreeMap<Key, Value>, pool: u32, endpoints: &[(IpAddr, u16)], affinity: Option<u32>) {
    if endpoints.is_empty() {
        return;
    }
    // With one endpoint there is nothing to remember, until a second joins: then its clients should stay.
    let count = endpoints.len() as u32;
    out.insert(Key::Pool(pool), Value::Pick { endpoints: count, sticky: affinity.is_some() });
    if let Some(seconds) = affinity
        && endpoints.iter().any(|(ip, _)| remembers(Family::of(ip)))
    {
        out.insert(Key::AffinityPool(pool), Value::Remember(seconds));
    }
    for (slot, (ip, port)) in (0..).zip(endpoints) {
        out.insert(Key::Endpoint(pool, slot), Value::Address(*ip, *port));
    }
}

/// `loadBalancerSourceRanges`: the addresses it guards, and who may pass.
fn add_firewall(
    out: &mut BTreeMap<Key, Value>,
    id: u32,
    protocol: Protocol,
    service: &ServicePort,
    config: &ProxyConfig,
    vips: &[IpAddr],
) {
    let ranges = &service.load_balancer_source_ranges;
    // The empty prefix admits everybody of its family.
    if ranges.is_empty() || vips.is_empty() {
        return;
    }
    let family = Family::of(&vips[0]);
    let mut admitted: Vec<IpNet> =
        ranges.iter().filter(|net| Family::of_net(net) == family).map(IpNet::trunc).collect();
    if admitted.iter().any(|net| net.prefix_len() == 0) {
        return;
    }
    // A node's own request to the address loops back with that address as its source.
    if config.node_ips.iter().any(|ip| admitted.iter().any(|net| net.contains(ip))) {
        admitted.extend(vips.iter().map(|ip| IpNet::from(*ip)));
    }
    for net in IpNet::aggregate(&admitted) {
        out.insert(Key::FirewallSource(cluster_pool(id), net), Value::Member);
    }
    for vip in vips {
        out.insert(Key::Firewall((*vip, protocol, service.port)), Value::Mark(cluster_pool(id)));
    }
}
