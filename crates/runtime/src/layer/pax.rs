//! PAX extended headers (POSIX pax, section "pax Extended Header"): `length key=value\n` records.

use super::archive::{ArchiveError, MAX_EXTENSION};

/// What the records of one extended header say about the member after it.
#[derive(Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

/// GNU tar's sparse files in PAX archives, versions 0.0, 0.1 and 1.0.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    /// The map is in front of the data (version 1.0).
    pub map_in_data: bool,
    /// Offsets and lengths in turn (versions 0.0 and 0.1).
    pub map: Vec<u64>,
}

impl Pax {
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, ArchiveError> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or(ArchiveError::Header("malformed PAX record"))?;
            pax.take(key, value)?;
            data = rest;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        match key {
            b"path" => self.path = Some(text(value)?),
            b"linkpath" => self.link = Some(text(value)?),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(text(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number(value)?),
            b"GNU.sparse.major" => self.sparse.map_in_data = number(value)? == 1,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(number(value)?),
            b"GNU.sparse.map" => {
                self.sparse.map = value.split(|&byte| byte == b',').map(number).collect::<Result<_, _>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((text(name)?, value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Splits off the first record: key, value, rest. The value may hold any byte, newlines too.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(10).position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&data[..space]).ok()?).ok()?;
    if length > MAX_EXTENSION {
        return None;
    }
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

pub(super) fn number(digits: &[u8]) -> Result<u64, ArchiveError> {
    let bad = ArchiveError::Header("malformed number");
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(bad)
}

fn text(value: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    if value.contains(&0) {
        return Err(ArchiveError::Header("NUL in a name"));
    }
    Ok(value.to_vec())
}

/// Seconds since 1970 with an optional fraction; digits past nanoseconds are dropped.
fn time(value: &[u8]) -> Result<(i64, u32), ArchiveError> {
    let bad = || ArchiveError::Header("malformed time");
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(number(parts.next().unwrap_or_default())?).map_err(|_| bad())?;
    let mut nanoseconds = 0;
    let fraction = parts.next().unwrap_or_default();
    for position in 0..9 {
        let digit = fraction.get(position).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(bad());
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let pax = Pax::parse(b"32 SCHILY.xattr.user.a=x\ny\n=z\0\xff\n19 mtime=-1.500000\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"x\ny\n=z\0\xff".to_vec())]);
        assert_eq!(pax.mtime, Some((-2, 500_000_000)));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            [&b"5 a=b"[..], b"6 a=bc", b"99 a=b\n", b"a=b\n", b"0 a=b\n", b"5 ab\n", b"-6 a=b\n", b"11 path=a\0b\n"]
        {
            assert!(Pax::parse(bad).is_err(), "{bad:?}");
        }
    }
}
