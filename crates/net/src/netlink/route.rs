//! Addresses and routes.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

use super::message::ip;
use super::{Attributes, Message, Netlink, NetlinkError, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTNH_F_ONLINK: u32 = 4;

/// Who made a route: ours carry this number, so that a restarted agent knows them again.
pub const ROUTE_PROTOCOL: u8 = 0x4b;

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteVia {
    /// Neighbours on this interface (by index).
    Device(u32),
    /// A gateway on whatever interface reaches it.
    Gateway(IpAddr),
    /// A gateway that is a neighbour on this interface, whatever its addresses say.
    GatewayOn(IpAddr, u32),
}

/// A unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub to: IpNet,
    pub via: RouteVia,
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => nix::libc::AF_INET as u8,
        IpAddr::V6(_) => nix::libc::AF_INET6 as u8,
    }
}

fn address_message(what: &'static str, kind: u16, flags: u16, index: u32, address: IpNet) -> Message {
    let mut header = [family(address.addr()), address.prefix_len(), IFA_F_NODAD, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if matches!(address, IpNet::V4(_)) {
        header[2] = 0;
    }
    Message::new(what, kind, flags, &header).attr_ip(IFA_LOCAL, address.addr()).attr_ip(IFA_ADDRESS, address.addr())
}

fn route_message(what: &'static str, kind: u16, flags: u16, route: &Route) -> Message {
    let scope = match route.via {
        RouteVia::Device(_) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let onlink = if matches!(route.via, RouteVia::GatewayOn(..)) { RTNH_F_ONLINK } else { 0 };
    let mut header = [0; 12];
    header[..8].copy_from_slice(&[
        family(route.to.addr()),
        route.to.prefix_len(),
        0,
        0,
        RT_TABLE_MAIN,
        ROUTE_PROTOCOL,
        scope,
        RTN_UNICAST,
    ]);
    header[8..].copy_from_slice(&onlink.to_ne_bytes());
    let mut message = Message::new(what, kind, flags, &header);
    if route.to.prefix_len() > 0 {
        message = message.attr_ip(RTA_DST, route.to.network());
    }
    match route.via {
        RouteVia::Device(index) => message.attr_u32(RTA_OIF, index),
        RouteVia::Gateway(gateway) => message.attr_ip(RTA_GATEWAY, gateway),
        RouteVia::GatewayOn(gateway, index) => message.attr_ip(RTA_GATEWAY, gateway).attr_u32(RTA_OIF, index),
    }
}

impl Message {
    /// Gives an interface an address; one it already has is no error.
    pub fn add_address(index: u32, address: IpNet) -> Message {
        address_message("add the address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address)
            .tolerate(&[Errno::EEXIST])
    }

    /// Takes an address from an interface.
    pub fn delete_address(index: u32, address: IpNet) -> Message {
        address_message("delete the address", RTM_DELADDR, 0, index, address).tolerate(&[Errno::EADDRNOTAVAIL])
    }

    /// Adds a route or replaces the one to the same destination.
    pub fn set_route(route: &Route) -> Message {
        route_message("set the route", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route)
    }

    /// Removes a route; one that is gone is no error.
    pub fn delete_route(route: &Route) -> Message {
        route_message("delete the route", RTM_DELROUTE, 0, route).tolerate(&[Errno::ESRCH])
    }
}

impl Netlink {
    /// The addresses of an interface, link-local IPv6 ones left out.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let request = Message::new("list addresses", RTM_GETADDR, 0, &[0; 8]);
        let mut found = Vec::new();
        self.dump(&request, |payload| {
            if u32_at(payload, 4) == Some(index) {
                found.extend(parse_address(payload));
            }
        })?;
        found.retain(|net| !matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local()));
        Ok(found)
    }

    /// The routes of the main table that carry [`ROUTE_PROTOCOL`].
    pub fn own_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let request = Message::new("list routes", RTM_GETROUTE, 0, &[0; 12]);
        let mut found = Vec::new();
        self.dump(&request, |payload| found.extend(parse_route(payload)))?;
        Ok(found)
    }
}

fn parse_address(payload: &[u8]) -> Option<IpNet> {
    let attributes = Attributes(payload.get(8..)?);
    let address = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?;
    IpNet::new(ip(address)?, *payload.get(1)?).ok()
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let attributes = Attributes(payload.get(12..)?);
    let table = attributes.find(RTA_TABLE).and_then(|v| u32_at(v, 0))?;
    if table != u32::from(RT_TABLE_MAIN) || *payload.get(5)? != ROUTE_PROTOCOL {
        return None;
    }
    let to = match attributes.find(RTA_DST) {
        Some(bytes) => ip(bytes)?,
        None if i32::from(*payload.first()?) == nix::libc::AF_INET6 => IpAddr::from([0; 16]),
        None => IpAddr::from([0; 4]),
    };
    let device = attributes.find(RTA_OIF).and_then(|v| u32_at(v, 0));
    let via = match (attributes.find(RTA_GATEWAY).and_then(ip), device) {
        (Some(gateway), Some(index)) if u32_at(payload, 8)? & RTNH_F_ONLINK != 0 => RouteVia::GatewayOn(gateway, index),
        (Some(gateway), _) => RouteVia::Gateway(gateway),
        (None, Some(index)) => RouteVia::Device(index),
        (None, None) => return None,
    };
    Some(Route { to: IpNet::new(to, *payload.get(1)?).ok()?, via })
}
