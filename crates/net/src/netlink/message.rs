//! Building and reading netlink messages.

use std::net::IpAddr;

use nix::errno::Errno;

use super::HEADER;

const NLA_F_NESTED: u16 = 0x8000;

/// A request: a fixed header of its family, then attributes.
#[derive(Debug, Clone)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
    pub(super) what: &'static str,
    pub(super) tolerated: &'static [Errno],
}

impl Message {
    /// `what` completes the sentence "failed to …" when the kernel refuses.
    pub fn new(what: &'static str, kind: u16, flags: u16, header: &[u8]) -> Message {
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(header);
        Message { kind, flags, body, what, tolerated: &[] }
    }

    /// Counts these error codes as success.
    pub fn tolerate(mut self, errnos: &'static [Errno]) -> Message {
        self.tolerated = errnos;
        self
    }

    pub fn attr(mut self, kind: u16, value: &[u8]) -> Message {
        self.put(kind, value);
        self
    }

    pub fn attr_u32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub fn attr_str(mut self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
        self
    }

    pub fn attr_ip(self, kind: u16, address: IpAddr) -> Message {
        match address {
            IpAddr::V4(v4) => self.attr(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attr(kind, &v6.octets()),
        }
    }

    /// Appends an attribute whose value is what `inner` appends, raw header bytes included.
    pub fn nested(mut self, kind: u16, prefix: &[u8], inner: impl FnOnce(Message) -> Message) -> Message {
        let start = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        self.body.extend_from_slice(prefix);
        let mut message = inner(self);
        let length = (message.body.len() - start) as u16;
        message.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message.body[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        message
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.body.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    pub(super) fn encode(&self, flags: u16, sequence: u32, out: &mut Vec<u8>) {
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(&((HEADER + self.body.len()) as u32).to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | flags).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&self.body);
    }
}

/// Iterates over attributes: type without flag bits, and value. Stops at the first malformed one.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        { self }.find_map(|(k, value)| (k == kind).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(super::u16_at(self.0, 0)?);
        let kind = super::u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Reads an address of four or sixteen bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}
