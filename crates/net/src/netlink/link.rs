//! Network interfaces: bridges, veth pairs, bridge ports.

use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::{Attributes, Message, Netlink, NetlinkError, u32_at};
use crate::netns::NetNs;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFF_UP: u32 = 1;

/// An interface as far as anybody here asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// Index of the bridge it is a port of, or 0.
    pub master: u32,
}

/// A veth pair to create: one end here, up, a port of a bridge; the other inside a namespace, still down.
#[derive(Debug)]
pub struct VethPair<'a> {
    pub host_name: &'a str,
    pub peer_name: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_netns: &'a NetNs,
    pub mtu: u32,
    pub bridge: u32,
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn up(index: u32) -> [u8; 16] {
    ifinfo(index, IFF_UP, IFF_UP)
}

impl Message {
    /// Creates a bridge that is up, unless an interface of that name exists.
    pub fn add_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Message {
        Message::new("create the bridge", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up(0))
            .attr_str(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .attr_u32(IFLA_MTU, mtu)
            .nested(IFLA_LINKINFO, &[], |m| m.attr(IFLA_INFO_KIND, b"bridge"))
    }

    /// Creates a veth pair; fails with `EEXIST` when the host name is taken.
    pub fn add_veth(pair: &VethPair<'_>) -> Message {
        let netns = pair.peer_netns.file().as_raw_fd() as u32;
        Message::new("create the veth pair", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up(0))
            .attr_str(IFLA_IFNAME, pair.host_name)
            .attr_u32(IFLA_MTU, pair.mtu)
            .attr_u32(IFLA_MASTER, pair.bridge)
            .nested(IFLA_LINKINFO, &[], |m| {
                m.attr(IFLA_INFO_KIND, b"veth").nested(IFLA_INFO_DATA, &[], |m| {
                    m.nested(VETH_INFO_PEER, &ifinfo(0, 0, 0), |m| {
                        m.attr_str(IFLA_IFNAME, pair.peer_name)
                            .attr(IFLA_ADDRESS, &pair.peer_mac)
                            .attr_u32(IFLA_MTU, pair.mtu)
                            .attr_u32(IFLA_NET_NS_FD, netns)
                    })
                })
            })
    }

    /// Lets a bridge port send frames back where they came from: where bridged packets pass the netfilter hooks
    /// (`bridge-nf-call-iptables`), a pod that reaches itself by a service address takes that way.
    pub fn set_hairpin(name: &str) -> Message {
        Message::new("configure the bridge port", RTM_NEWLINK, 0, &ifinfo(0, 0, 0)).attr_str(IFLA_IFNAME, name).nested(
            IFLA_LINKINFO,
            &[],
            |m| {
                m.attr(IFLA_INFO_SLAVE_KIND, b"bridge")
                    .nested(IFLA_INFO_SLAVE_DATA, &[], |m| m.attr(IFLA_BRPORT_MODE, &[1]))
            },
        )
    }

    /// Brings an interface up.
    pub fn set_up(index: u32) -> Message {
        Message::new("bring the interface up", RTM_NEWLINK, 0, &up(index))
    }

    /// Removes an interface (for a veth, both ends); one that is gone is no error.
    pub fn delete_link(name: &str) -> Message {
        Message::new("delete the interface", RTM_DELLINK, 0, &ifinfo(0, 0, 0))
            .attr_str(IFLA_IFNAME, name)
            .tolerate(&[Errno::ENODEV])
    }
}

impl Netlink {
    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = Message::new("list interfaces", RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        let mut links = Vec::new();
        self.dump(&request, |payload| links.extend(parse(payload)))?;
        Ok(links)
    }

    /// The interface of this name, if it exists.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }
}

fn parse(payload: &[u8]) -> Option<Link> {
    let attributes = Attributes(payload.get(16..)?);
    let name = attributes.find(IFLA_IFNAME)?;
    Some(Link {
        index: u32_at(payload, 4)?,
        name: String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(),
        mtu: attributes.find(IFLA_MTU).and_then(|v| u32_at(v, 0)).unwrap_or_default(),
        master: attributes.find(IFLA_MASTER).and_then(|v| u32_at(v, 0)).unwrap_or_default(),
    })
}
