//! The inside of a pod's network namespace.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use crate::netlink::{Message, Netlink, Route, RouteVia};

/// What a pod's interface is called.
pub(super) const INTERFACE: &str = "eth0";
const LOOPBACK: u32 = 1;

/// Brings loopback and `eth0` up, gives the pod its addresses and a default route per family. Runs on a thread that
/// has entered the pod's namespace.
pub(super) fn configure(ips: &[IpAddr], gateways: &[IpAddr]) -> io::Result<()> {
    let index = if_nametoindex(INTERFACE)?;
    let mut batch = vec![Message::set_up(LOOPBACK), Message::set_up(index)];
    if gateways.iter().any(IpAddr::is_ipv6) {
        // Routes and addresses are ours to choose: no advertisements, no waiting for conflicts.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/accept_ra"), "0")?;
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/accept_dad"), "0")?;
    }
    for ip in ips {
        batch.push(Message::add_address(index, IpNet::from(*ip)));
    }
    for gateway in gateways {
        let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let default = IpNet::new(any, 0).map_err(io::Error::other)?;
        batch.push(Message::set_route(&Route { to: IpNet::from(*gateway), via: RouteVia::Device(index) }));
        batch.push(Message::set_route(&Route { to: default, via: RouteVia::GatewayOn(*gateway, index) }));
    }
    Ok(Netlink::route()?.execute(&batch)?)
}
