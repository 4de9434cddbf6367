//! Connection tracking entries: list and delete.

use std::net::IpAddr;

use nix::errno::Errno;

use super::message::ip;
use super::{Attributes, Message, Netlink, NetlinkError};

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// A tracked flow: as it was sent, and as answers to it look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    id: [u8; 4],
}

fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

impl Netlink {
    /// Calls `each` for every tracked flow with ports (TCP, UDP, SCTP) of an address family.
    pub fn flows(&mut self, v6: bool, mut each: impl FnMut(Flow)) -> Result<(), NetlinkError> {
        let family = if v6 { nix::libc::AF_INET6 } else { nix::libc::AF_INET } as u8;
        let request = Message::new("list tracked connections", IPCTNL_MSG_CT_GET, 0, &header(family));
        self.dump(&request, |payload| {
            if let Some(flow) = payload.get(4..).and_then(|rest| parse(Attributes(rest))) {
                each(flow);
            }
        })
    }

    /// Forgets flows, so that their next packet is looked at anew. One that has ended by itself is no error.
    pub fn delete_flows(&mut self, flows: &[Flow]) -> Result<(), NetlinkError> {
        for batch in flows.chunks(64) {
            let messages: Vec<Message> = batch.iter().map(delete).collect();
            self.execute(&messages)?;
        }
        Ok(())
    }
}

fn delete(flow: &Flow) -> Message {
    let tuple = flow.original;
    let (family, source, destination) = match tuple.source {
        IpAddr::V4(_) => (nix::libc::AF_INET, CTA_IP_V4_SRC, CTA_IP_V4_DST),
        IpAddr::V6(_) => (nix::libc::AF_INET6, CTA_IP_V6_SRC, CTA_IP_V6_DST),
    };
    Message::new("delete a tracked connection", IPCTNL_MSG_CT_DELETE, 0, &header(family as u8))
        .nested(CTA_TUPLE_ORIG, &[], |m| {
            m.nested(CTA_TUPLE_IP, &[], |m| m.attr_ip(source, tuple.source).attr_ip(destination, tuple.destination))
                .nested(CTA_TUPLE_PROTO, &[], |m| {
                    m.attr(CTA_PROTO_NUM, &[tuple.protocol])
                        .attr(CTA_PROTO_SRC_PORT, &tuple.source_port.to_be_bytes())
                        .attr(CTA_PROTO_DST_PORT, &tuple.destination_port.to_be_bytes())
                })
        })
        .attr(CTA_ID, &flow.id)
        .tolerate(&[Errno::ENOENT])
}

fn parse(attributes: Attributes<'_>) -> Option<Flow> {
    Some(Flow {
        original: parse_tuple(attributes.find(CTA_TUPLE_ORIG)?)?,
        reply: parse_tuple(attributes.find(CTA_TUPLE_REPLY)?)?,
        id: attributes.find(CTA_ID)?.try_into().ok()?,
    })
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let addresses = Attributes(Attributes(bytes).find(CTA_TUPLE_IP)?);
    let ports = Attributes(Attributes(bytes).find(CTA_TUPLE_PROTO)?);
    let port = |kind| Some(u16::from_be_bytes(ports.find(kind)?.try_into().ok()?));
    Some(Tuple {
        source: ip(addresses.find(CTA_IP_V4_SRC).or_else(|| addresses.find(CTA_IP_V6_SRC))?)?,
        destination: ip(addresses.find(CTA_IP_V4_DST).or_else(|| addresses.find(CTA_IP_V6_DST))?)?,
        protocol: *ports.find(CTA_PROTO_NUM)?.first()?,
        source_port: port(CTA_PROTO_SRC_PORT)?,
        destination_port: port(CTA_PROTO_DST_PORT)?,
    })
}
