//! Addresses and their ranges.

use super::kubernetes::Opaque;
use crate::eval::{Context, EvalError, Outcome};
use crate::val::Val;
use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(pub(crate) IpAddr);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub(crate) address: IpAddr,
    pub(crate) bits: u8,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Ip {
    pub(crate) fn is_link_local_multicast(&self) -> bool {
        match self.0 {
            IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
            IpAddr::V6(a) => a.segments()[0] & 0xff0f == 0xff02,
        }
    }

    pub(crate) fn is_link_local_unicast(&self) -> bool {
        match self.0 {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.segments()[0] & 0xffc0 == 0xfe80,
        }
    }

    pub(crate) fn is_global_unicast(&self) -> bool {
        let broadcast = matches!(self.0, IpAddr::V4(a) if a.is_broadcast());
        !(broadcast
            || self.0.is_unspecified()
            || self.0.is_loopback()
            || self.0.is_multicast()
            || self.is_link_local_unicast())
    }
}

impl Cidr {
    pub(crate) fn masked(&self) -> Cidr {
        let address = match self.address {
            IpAddr::V4(a) => {
                IpAddr::V4((u32::from(a) & u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)).into())
            }
            IpAddr::V6(a) => {
                IpAddr::V6((u128::from(a) & u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0)).into())
            }
        };
        Cidr { address, bits: self.bits }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let shift = u32::from(width(self.address) - self.bits);
        self.address.is_ipv4() == address.is_ipv4()
            && bits(self.address).checked_shr(shift).unwrap_or(0) == bits(address).checked_shr(shift).unwrap_or(0)
    }
}

pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    let address: IpAddr = text.parse().map_err(|_| {
        if text.contains('%') && text.split('%').next().is_some_and(|a| a.parse::<IpAddr>().is_ok()) {
            return EvalError::new(format!("IP address {text:?} with zone value is not allowed"));
        }
        let why = format!("ParseAddr({text:?}): unable to parse IP");
        EvalError::new(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    })?;
    match address {
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        address => Ok(address),
    }
}

pub(crate) fn parse_cidr(text: &str) -> Result<Cidr, EvalError> {
    let fail = |why: &str| {
        let why = format!("netip.ParsePrefix({text:?}): {why}");
        EvalError::new(format!("network address parse error during conversion from string: {why}"))
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| fail("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| fail(&format!("ParseAddr({address:?}): unable to parse IP")))?;
    if bits.is_empty() || (bits.len() > 1 && bits.starts_with('0')) || !bits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(fail(&format!("bad bits after slash: {bits:?}")));
    }
    let bits: u8 =
        bits.parse().ok().filter(|b| *b <= width(address)).ok_or_else(|| fail("prefix length out of range"))?;
    match address {
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        address => Ok(Cidr { address, bits }),
    }
}

pub(crate) fn ip<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Str(s)] => parse_ip(s).map(|a| Val::opaque(Opaque::Ip(Ip(a)))),
        [Val::Opaque(o)] => match &**o {
            Opaque::Cidr(cidr) => Ok(Val::opaque(Opaque::Ip(Ip(cidr.address)))),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn is_canonical<'a>(text: &str) -> Outcome<'a> {
    parse_ip(text).map(|a| Val::Bool(a.to_string() == text))
}

pub(crate) fn cidr<'a>(text: &str) -> Outcome<'a> {
    parse_cidr(text).map(|c| Val::opaque(Opaque::Cidr(c)))
}

fn range_and<'v, 'a>(args: &'v [Val<'a>]) -> Result<(Cidr, &'v Val<'a>), EvalError> {
    match args {
        [Val::Opaque(o), other] => match &**o {
            Opaque::Cidr(cidr) => Ok((*cidr, other)),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn contains_ip<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (range, other) = range_and(args)?;
    let address = match other {
        Val::Str(s) => parse_ip(s)?,
        Val::Opaque(o) => match &**o {
            Opaque::Ip(ip) => ip.0,
            _ => return Err(EvalError::no_such_overload()),
        },
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Val::Bool(range.contains(address)))
}

pub(crate) fn contains_cidr<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (range, other) = range_and(args)?;
    let other = match other {
        Val::Str(s) => parse_cidr(s)?,
        Val::Opaque(o) => match &**o {
            Opaque::Cidr(cidr) => *cidr,
            _ => return Err(EvalError::no_such_overload()),
        },
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Val::Bool(range.contains(other.address) && range.bits <= other.bits))
}
