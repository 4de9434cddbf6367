//! A small synchronous netlink client: as much of rtnetlink, conntrack and nftables as a node needs.
//!
//! Several requests go out in one datagram and each is acknowledged, so that setting up a pod costs two system call
//! round trips. A socket belongs to the network namespace of the thread that opened it, for ever.

mod conntrack;
mod link;
mod message;
mod nftables;
mod route;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

pub use conntrack::{Flow, Tuple};
pub use link::{Link, VethPair};
pub use message::{Attributes, Message};
pub use route::{ROUTE_PROTOCOL, Route, RouteVia};

const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Why a netlink exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("failed to open a netlink socket")]
    Open(#[source] Errno),
    #[error("failed to exchange netlink messages")]
    Exchange(#[source] Errno),
    #[error("failed to {what}")]
    Refused {
        what: &'static str,
        #[source]
        errno: Errno,
    },
    #[error("malformed netlink message")]
    Malformed,
}

impl NetlinkError {
    /// The kernel's answer, when it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A netlink socket. Requests are answered in order; a socket serves one exchange at a time.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket for links, addresses and routes of the calling thread's network namespace.
    pub fn route() -> Result<Netlink, NetlinkError> {
        Netlink::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for connection tracking and nftables of the calling thread's network namespace.
    pub fn netfilter() -> Result<Netlink, NetlinkError> {
        Netlink::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Netlink, NetlinkError> {
        let open = || {
            let socket = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(protocol))?;
            // An answer that never comes must not hang the node for ever.
            socket::setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
            socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(NetlinkError::Open)?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// Sends all requests in one datagram and waits until each is acknowledged. The kernel carries out every one of
    /// them even when an earlier one fails; the first failure that its message doesn't tolerate is returned.
    pub fn execute(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(1024);
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.encode(NLM_F_REQUEST | NLM_F_ACK, self.sequence, &mut datagram);
        }
        self.send(&datagram)?;
        let mut waiting = messages.len();
        let mut failure = None;
        while waiting > 0 {
            self.receive(|_, sequence, errno, _| {
                let (Some(errno), Some(message)) = (errno, messages.get(sequence.wrapping_sub(first) as usize)) else {
                    return;
                };
                waiting -= 1;
                let tolerated = errno == Errno::UnknownErrno || message.tolerated.contains(&errno);
                if !tolerated && failure.is_none() {
                    failure = Some(NetlinkError::Refused { what: message.what, errno });
                }
            })?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Asks for everything that `request` describes and calls `each` with the payload of every answer.
    pub fn dump(&mut self, request: &Message, mut each: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let current = self.sequence;
        let mut datagram = Vec::new();
        request.encode(NLM_F_REQUEST | NLM_F_DUMP, current, &mut datagram);
        self.send(&datagram)?;
        let mut end = None;
        while end.is_none() {
            self.receive(|kind, sequence, errno, payload| {
                if sequence != current {
                    return;
                }
                match errno {
                    Some(errno) => end = Some(errno),
                    None if kind == NLMSG_DONE => end = Some(Errno::UnknownErrno),
                    None => each(payload),
                }
            })?;
        }
        match end {
            Some(errno) if errno != Errno::UnknownErrno => Err(NetlinkError::Refused { what: request.what, errno }),
            _ => Ok(()),
        }
    }

    fn send(&self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let kernel = NetlinkAddr::new(0, 0);
        socket::sendto(self.socket.as_raw_fd(), datagram, &kernel, MsgFlags::empty())
            .map(drop)
            .map_err(NetlinkError::Exchange)
    }

    /// Receives one datagram and hands over each message in it: type, sequence number, the error code of an
    /// acknowledgement (`UnknownErrno`, zero, for success) and payload.
    fn receive(&mut self, mut each: impl FnMut(u16, u32, Option<Errno>, &[u8])) -> Result<(), NetlinkError> {
        let length = loop {
            match socket::recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                other => break other.map_err(NetlinkError::Exchange)?,
            }
        };
        let mut rest = self.buffer.get(..length).ok_or(NetlinkError::Malformed)?;
        while rest.len() >= HEADER {
            let size = u32_at(rest, 0).ok_or(NetlinkError::Malformed)? as usize;
            let kind = u16_at(rest, 4).ok_or(NetlinkError::Malformed)?;
            let sequence = u32_at(rest, 8).ok_or(NetlinkError::Malformed)?;
            let payload = rest.get(HEADER..size).ok_or(NetlinkError::Malformed)?;
            let errno = match kind {
                NLMSG_ERROR => {
                    let code = u32_at(payload, 0).ok_or(NetlinkError::Malformed)? as i32;
                    Some(Errno::from_raw(code.wrapping_neg()))
                }
                _ => None,
            };
            each(kind, sequence, errno, payload);
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Turns a netlink failure into an I/O error that keeps the kernel's code.
impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> io::Error {
        io::Error::other(error)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
