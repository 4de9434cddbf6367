//! Kernel settings of the host's network namespace.

use std::fs;
use std::path::Path;

use ipnet::IpNet;

use super::{PodNetworkConfig, PodNetworkError};
use crate::netlink::Netlink;

/// Forwarding on; a loose reverse path filter and no redirects on the bridge, where traffic between two pods comes in
/// and goes out by the same interface on purpose.
pub(super) fn configure_host(config: &PodNetworkConfig) -> Result<(), PodNetworkError> {
    let bridge = &config.bridge;
    set("ipv4/ip_forward", "1")?;
    set(&format!("ipv4/conf/{bridge}/rp_filter"), "2")?;
    set(&format!("ipv4/conf/{bridge}/send_redirects"), "0")?;
    set("ipv4/conf/all/send_redirects", "0")?;
    if config.pod_cidrs.iter().any(|net| matches!(net, IpNet::V6(_))) {
        set("ipv6/conf/all/forwarding", "1")?;
        set(&format!("ipv6/conf/{bridge}/accept_ra"), "0")?;
        // Every address here is ours to choose: waiting for conflicts only delays the first packet.
        set(&format!("ipv6/conf/{bridge}/accept_dad"), "0")?;
    }
    Ok(())
}

/// Writes a setting unless it has the value already: `/proc/sys` may be read-only and set up beforehand.
fn set(name: &str, value: &str) -> Result<(), PodNetworkError> {
    let path = format!("/proc/sys/net/{name}");
    if fs::read_to_string(&path).is_ok_and(|old| old.trim() == value) {
        return Ok(());
    }
    fs::write(Path::new(&path), value).map_err(|source| PodNetworkError::Sysctl { path, value: value.into(), source })
}

/// The MTU of the interface that the IPv4 default route uses, 1500 if there is none.
pub(super) fn default_route_mtu(netlink: &mut Netlink) -> Result<u32, PodNetworkError> {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let device = default_device(&table);
    let mtu = netlink.links()?.into_iter().find(|link| Some(link.name.as_str()) == device).map(|link| link.mtu);
    Ok(mtu.unwrap_or(1500))
}

/// Finds the device of the default route in the text of `/proc/net/route`.
fn default_device(table: &str) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (device, destination) = (fields.next()?, fields.next()?);
        let mask = fields.nth(5)?;
        (destination == "00000000" && mask == "00000000").then_some(device)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_default_device() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     lan0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     wan0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(super::default_device(table), Some("wan0"));
        assert_eq!(super::default_device(""), None);
    }
}
