//! UDP flows that outlive their endpoint.
//!
//! A UDP flow stays as it was first translated for as long as packets come, so a client that goes on sending to an
//! endpoint that is gone, or began before there was any, is never balanced anew unless its flow is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::state::{Family, Protocol, ProxyState};
use crate::netlink::{Flow, Netlink, NetlinkError};

type Addresses = BTreeSet<(IpAddr, u16)>;

/// Where UDP flows to Services may lead.
#[derive(Debug, Default)]
pub(super) struct UdpTargets {
    services: BTreeMap<(IpAddr, u16), Addresses>,
    node_ports: BTreeMap<u16, Addresses>,
}

impl UdpTargets {
    /// Services without an endpoint that serves are left out: their flows have nowhere better to go.
    pub(super) fn of(state: &ProxyState) -> UdpTargets {
        let mut targets = UdpTargets::default();
        for (key, service) in &state.services {
            let serving: Addresses = service.endpoints.iter().filter(|e| e.serving).map(|e| (e.ip, e.port)).collect();
            if key.protocol != Protocol::Udp || serving.is_empty() {
                continue;
            }
            let ips = service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
            targets.services.extend(ips.map(|ip| ((*ip, service.port), serving.clone())));
            if service.node_port != 0 {
                targets.node_ports.insert(service.node_port, serving);
            }
        }
        targets
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether the flow was sent to a Service but leads to nothing that serves it.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        let (to, from) = (flow.original, flow.reply);
        let serving = self
            .services
            .get(&(to.destination, to.destination_port))
            .or_else(|| self.node_ports.get(&to.destination_port));
        i32::from(to.protocol) == nix::libc::IPPROTO_UDP
            && serving.is_some_and(|serving| !serving.contains(&(from.source, from.source_port)))
    }
}

/// Forgets stale UDP flows of a family and returns how many there were.
pub(super) fn forget_stale(netlink: &mut Netlink, family: Family, targets: &UdpTargets) -> Result<usize, NetlinkError> {
    let mut stale = Vec::new();
    netlink.flows(family == Family::V6, |flow| {
        if targets.is_stale(&flow) {
            stale.push(flow);
        }
    })?;
    netlink.delete_flows(&stale)?;
    Ok(stale.len())
}
