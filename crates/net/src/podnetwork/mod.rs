//! The built-in pod network: a bridge on the host, a veth pair per pod, addresses from the node's pod CIDR.
//!
//! A pod's address is a single host (/32, /128) and its only neighbour the gateway, so all of its traffic, to pods of
//! the same node too, is routed by the host: service translation and network policy see both directions, whether or
//! not bridged packets pass the netfilter hooks (`bridge-nf-call-iptables`). Ports must not be isolated: where they
//! do pass, the kernel bridges what was translated from one pod's port to another's.
//!
//! Everything is synchronous and belongs to the network namespace of the thread that called [`PodNetwork::open`];
//! async callers use a blocking thread.

mod ipam;
mod pod;
mod sysctl;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use nix::errno::Errno;

pub use ipam::{Ipam, IpamError};

use crate::netlink::{Message, Netlink, NetlinkError, Route, RouteVia, VethPair};
use crate::netns::NetNs;

/// Host ends of pod interfaces start with this.
const PORT_PREFIX: &str = "cnp";

/// What the pod network is to look like.
#[derive(Debug, Clone)]
pub struct PodNetworkConfig {
    /// Name of the bridge, at most 15 characters, "cni0" by custom.
    pub bridge: String,
    /// The node's pod CIDRs, at most one of each family; the first decides a pod's primary address.
    pub pod_cidrs: Vec<IpNet>,
    /// MTU of pod interfaces; by default that of the host's default route, else 1500.
    pub mtu: Option<u32>,
    /// Where allocations are kept.
    pub state_dir: PathBuf,
}

/// How a pod is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIp {
    /// One address per pod CIDR, in their order.
    pub ips: Vec<IpAddr>,
    pub mac: [u8; 6],
    /// The interface's name inside the pod.
    pub ifname: String,
}

/// A route to another node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRoute {
    pub pod_cidr: IpNet,
    /// An address of that node on a network this one shares.
    pub via: IpAddr,
}

/// Why the network could not be set up or a pod attached.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    #[error("invalid pod network configuration: {0}")]
    Config(String),
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("failed to open the network namespace {path}")]
    NetNs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to configure the inside of the pod's network namespace")]
    Inside(#[source] io::Error),
    #[error("failed to set {path} to {value}")]
    Sysctl {
        path: String,
        value: String,
        #[source]
        source: io::Error,
    },
}

/// The pod network of one node.
#[derive(Debug)]
pub struct PodNetwork {
    config: PodNetworkConfig,
    mtu: u32,
    bridge: u32,
    netlink: Mutex<Netlink>,
    ipam: Mutex<Ipam>,
}

impl PodNetwork {
    /// Creates the bridge or adjusts the one that is there, turns on forwarding and opens the allocations.
    pub fn open(config: PodNetworkConfig) -> Result<PodNetwork, PodNetworkError> {
        check(&config)?;
        let mut netlink = Netlink::route()?;
        let ipam = Ipam::open(&config.state_dir, &config.pod_cidrs)?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => sysctl::default_route_mtu(&mut netlink)?,
        };
        let bridge = ensure_bridge(&mut netlink, &config, mtu)?;
        sysctl::configure_host(&config)?;
        Ok(PodNetwork { config, mtu, bridge, netlink: Mutex::new(netlink), ipam: Mutex::new(ipam) })
    }

    /// Gives a pod its addresses and connects its namespace. Repeating it for the same pod yields the same addresses;
    /// after a failure nothing is left behind.
    ///
    /// `netns` is a path to the namespace, `pod` an id that is unique on this node, such as the pod's uid or its
    /// sandbox's id.
    pub fn attach(&self, netns: &Path, pod: &str) -> Result<PodIp, PodNetworkError> {
        let namespace = NetNs::open(netns).map_err(|source| PodNetworkError::NetNs { path: netns.into(), source })?;
        let ips = self.ipam().allocate(pod)?;
        let result = self.connect(&namespace, pod, ips);
        if result.is_err()
            && let Err(error) = self.detach(pod)
        {
            tracing::warn!(pod, error = %error, "failed to undo an incomplete pod attachment");
        }
        result
    }

    fn connect(&self, namespace: &NetNs, pod: &str, ips: Vec<IpAddr>) -> Result<PodIp, PodNetworkError> {
        let host_name = port_name(pod);
        let mac = mac_of(&ips);
        let pair = VethPair {
            host_name: &host_name,
            peer_name: pod::INTERFACE,
            peer_mac: mac,
            peer_netns: namespace,
            mtu: self.mtu,
            bridge: self.bridge,
        };
        let batch = [Message::add_veth(&pair), Message::set_hairpin(&host_name)];
        let created = self.netlink().execute(&batch);
        match created {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                // Left by an attachment that was cut short.
                let mut netlink = self.netlink();
                netlink.execute(&[Message::delete_link(&host_name)])?;
                netlink.execute(&batch)?;
            }
            other => other?,
        }
        let gateways: Vec<IpAddr> = self.config.pod_cidrs.iter().map(ipam::gateway).collect();
        namespace.run(|| pod::configure(&ips, &gateways)).and_then(|inner| inner).map_err(PodNetworkError::Inside)?;
        Ok(PodIp { ips, mac, ifname: pod::INTERFACE.into() })
    }

    /// Disconnects a pod and releases its addresses; one that isn't attached is no error.
    pub fn detach(&self, pod: &str) -> Result<(), PodNetworkError> {
        self.netlink().execute(&[Message::delete_link(&port_name(pod))])?;
        Ok(self.ipam().release(pod)?)
    }

    /// Detaches every pod that isn't among the living and removes ports that belong to nobody; for use after a
    /// restart, before pods are started. Returns the pods that were detached.
    pub fn reconcile(&self, live: &BTreeSet<String>) -> Result<Vec<String>, PodNetworkError> {
        let stale: Vec<String> = self.ipam().pods().filter(|pod| !live.contains(*pod)).map(str::to_string).collect();
        for pod in &stale {
            self.detach(pod)?;
        }
        let known: BTreeSet<String> = live.iter().map(|pod| port_name(pod)).collect();
        let mut netlink = self.netlink();
        for link in netlink.links()? {
            if link.master == self.bridge && link.name.starts_with(PORT_PREFIX) && !known.contains(&link.name) {
                netlink.execute(&[Message::delete_link(&link.name)])?;
            }
        }
        Ok(stale)
    }

    /// The addresses a pod holds, if it is attached.
    pub fn addresses(&self, pod: &str) -> Option<Vec<IpAddr>> {
        self.ipam().addresses(pod)
    }

    /// Adds a route that covers the service addresses: without one the kernel refuses a connection from the host
    /// before the service proxy sees its first packet. No packet is ever sent along it.
    pub fn ensure_service_route(&self, service_cidr: IpNet) -> Result<(), PodNetworkError> {
        let route = Route { to: service_cidr.trunc(), via: RouteVia::Device(self.bridge) };
        Ok(self.netlink().execute(&[Message::set_route(&route)])?)
    }

    /// Makes the routes to other nodes' pods exactly these.
    pub fn sync_peer_routes(&self, peers: &[PeerRoute]) -> Result<(), PodNetworkError> {
        let wanted: BTreeSet<Route> =
            peers.iter().map(|p| Route { to: p.pod_cidr.trunc(), via: RouteVia::Gateway(p.via) }).collect();
        let mut netlink = self.netlink();
        let present: BTreeSet<Route> =
            netlink.own_routes()?.into_iter().filter(|r| matches!(r.via, RouteVia::Gateway(_))).collect();
        let targets: BTreeSet<IpNet> = wanted.iter().map(|route| route.to).collect();
        let mut batch: Vec<Message> = wanted.difference(&present).map(Message::set_route).collect();
        // A route to the same place by another way has been replaced already.
        batch.extend(present.iter().filter(|route| !targets.contains(&route.to)).map(Message::delete_route));
        for part in batch.chunks(32) {
            netlink.execute(part)?;
        }
        Ok(())
    }

    /// Removes the bridge and our routes; pods lose their connection. Allocations stay.
    pub fn cleanup(&self) -> Result<(), PodNetworkError> {
        let mut netlink = self.netlink();
        for route in netlink.own_routes()? {
            netlink.execute(&[Message::delete_route(&route)])?;
        }
        Ok(netlink.execute(&[Message::delete_link(&self.config.bridge)])?)
    }

    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    fn netlink(&self) -> MutexGuard<'_, Netlink> {
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(config: &PodNetworkConfig) -> Result<(), PodNetworkError> {
    let name = &config.bridge;
    let bad = |c: u8| !c.is_ascii_alphanumeric() && !matches!(c, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 15 || name.starts_with('.') || name.bytes().any(bad) {
        return Err(PodNetworkError::Config(format!("{name:?} is no name for a bridge")));
    }
    if config.pod_cidrs.is_empty() {
        return Err(PodNetworkError::Config("the node has no pod CIDR".into()));
    }
    let v4 = config.pod_cidrs.iter().filter(|net| matches!(net, IpNet::V4(_))).count();
    if v4 > 1 || config.pod_cidrs.len() - v4 > 1 {
        return Err(PodNetworkError::Config("more than one pod CIDR of the same family".into()));
    }
    Ok(())
}

/// Makes the bridge exist, up, with the gateway addresses and no others. Returns its index.
fn ensure_bridge(netlink: &mut Netlink, config: &PodNetworkConfig, mtu: u32) -> Result<u32, PodNetworkError> {
    let wanted: Vec<IpNet> =
        config.pod_cidrs.iter().filter_map(|net| IpNet::new(ipam::gateway(net), net.prefix_len()).ok()).collect();
    let gateways: Vec<IpAddr> = wanted.iter().map(IpNet::addr).collect();
    // A fixed hardware address: a bridge without one changes it as ports come and go, and pods would lose it.
    let created = netlink.execute(&[Message::add_bridge(&config.bridge, mac_of(&gateways), mtu)]);
    match created {
        Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
        _ => {}
    }
    let link = netlink.link(&config.bridge)?;
    let index = link.ok_or(PodNetworkError::Netlink(NetlinkError::Malformed))?.index;
    let mut batch = vec![Message::set_up(index)];
    let present = netlink.addresses(index)?;
    batch.extend(present.iter().filter(|net| !wanted.contains(net)).map(|net| Message::delete_address(index, *net)));
    batch.extend(wanted.iter().map(|net| Message::add_address(index, *net)));
    netlink.execute(&batch)?;
    Ok(index)
}

/// The host end's name follows from the pod's id, so that it can be removed without any state.
fn port_name(pod: &str) -> String {
    let hash = pod
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{PORT_PREFIX}{:012x}", hash >> 16)
}

/// A local hardware address that follows from the IP address: when an address is reused, no neighbour holds a stale one.
fn mac_of(ips: &[IpAddr]) -> [u8; 6] {
    let tail = match ips.first() {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let o = v6.octets();
            [o[12] ^ o[7], o[13], o[14], o[15]]
        }
        None => [0; 4],
    };
    [0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]]
}
