//! `30000-32767`: a range of ports as flags name it (upstream `apimachinery/pkg/util/net.PortRange`).

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// That of `--service-node-port-range`.
impl Default for PortRange {
    fn default() -> PortRange {
        PortRange { first: 30000, last: 32767 }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unable to parse port range: {0}")]
    Form(String),
    #[error("the port range cannot be greater than 65535: {0}")]
    TooLarge(String),
    #[error("end port cannot be less than start port: {0}")]
    Backwards(String),
}

impl FromStr for PortRange {
    type Err = Error;

    /// `first-last`, `first+more` or a single port; nothing is the default.
    fn from_str(text: &str) -> Result<PortRange, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(PortRange::default());
        }
        let number = |part: &str| part.parse::<u32>().map_err(|_| Error::Form(text.into()));
        let (first, last) = match (text.split_once('-'), text.split_once('+')) {
            (None, None) => (number(text)?, number(text)?),
            (Some((first, last)), None) => (number(first)?, number(last)?),
            (None, Some((first, more))) => (number(first)?, number(first)?.saturating_add(number(more)?)),
            (Some(_), Some(_)) => return Err(Error::Form(text.into())),
        };
        let (Ok(low), Ok(high)) = (u16::try_from(first), u16::try_from(last)) else {
            return Err(Error::TooLarge(text.into()));
        };
        if high < low {
            return Err(Error::Backwards(text.into()));
        }
        Ok(PortRange { first: low, last: high })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRange {
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// The first of the ports that are given to those who ask for none: the ones before it are left to those who do
    /// (upstream `calculateRangeOffset`).
    pub fn dynamic(self) -> u16 {
        let size = self.last - self.first;
        match size {
            ..16 => self.first,
            _ => self.first + ((u32::from(size) + 1) / 32).clamp(16, 128) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_flags_name_them() {
        let range = |first, last| Ok(PortRange { first, last });
        let form = |text: &str| Err(Error::Form(text.into()));
        for (text, expected) in [
            ("", range(30000, 32767)),
            (" 30000-32767 ", range(30000, 32767)),
            ("80", range(80, 80)),
            ("100+99", range(100, 199)),
            ("1-65535", range(1, 65535)),
            ("1-65536", Err(Error::TooLarge("1-65536".into()))),
            ("65535+1", Err(Error::TooLarge("65535+1".into()))),
            ("2-1", Err(Error::Backwards("2-1".into()))),
            ("a-b", form("a-b")),
            ("1-2+3", form("1-2+3")),
            ("-5", form("-5")),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn the_first_ports_are_left_alone() {
        for (text, expected) in [("30000-32767", 30086), ("1-16", 1), ("1-17", 17), ("1-65535", 129), ("7", 7)] {
            assert_eq!(text.parse::<PortRange>().unwrap().dynamic(), expected, "{text}");
        }
    }
}
