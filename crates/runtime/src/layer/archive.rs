//! A bounded reader of tar streams: ustar, GNU and PAX members with long names, xattrs and sparse files.
//!
//! The `tar` crate supplies the header layouts. Its own iterator is not used: it reads a long name or a PAX header of
//! any size into memory, splits PAX records at newlines (binary xattrs hold them) and ignores GNU's PAX sparse formats.

use std::io::{self, Read};

use super::pax::{self, Pax, PaxSparse};

/// Most bytes of one long name or PAX header.
pub const MAX_EXTENSION: usize = 1 << 20;
/// Most bytes of a member's name or link target.
pub const MAX_PATH: usize = 4096;
const MAX_SEGMENTS: usize = 100_000;
const BLOCK: u64 = 512;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    #[error("the archive is truncated")]
    Truncated,
    #[error("invalid archive: {0}")]
    Header(&'static str),
    #[error("invalid archive: unknown member type {0:?}")]
    MemberType(char),
    #[error("the archive has more than {0} members")]
    TooManyMembers(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One member of an archive. Names are as written: absolute, with `..`, anything but NUL.
#[derive(Debug, Clone)]
pub struct Member {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// Size of the file, holes included.
    pub size: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes of a sparse file go, as ascending offsets and lengths.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// Reads members one by one; as a [`Read`] it gives the stored bytes of the last one.
pub struct Reader<R> {
    source: R,
    left: u64,
    padding: u64,
    headers: u64,
    max_members: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub fn new(source: R, max_members: u64) -> Self {
        Self { source, left: 0, padding: 0, headers: 0, max_members, ended: false }
    }

    pub fn into_inner(self) -> R {
        self.source
    }

    /// The next member, or none at the end of the archive.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let header = tar::Header::from_byte_slice(&header);
            let size = unsigned(&header.as_old().size)?;
            match header.as_old().linkflag[0] {
                b'L' => long_name = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extension(size)?).to_vec()),
                b'x' => pax = Pax::parse(&self.extension(size)?)?,
                // Global records are comments in practice; upstream's runtimes ignore them too.
                b'g' => drop(self.extension(size)?),
                _ => {
                    return self.member(header, size, pax, long_name, long_link).map(Some);
                }
            }
        }
    }

    /// The next header block whose checksum is right.
    fn next_header(&mut self) -> Result<Option<[u8; 512]>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let skip = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.source.by_ref().take(skip), &mut io::sink()).map_err(ArchiveError::Read)?;
        if skipped != skip {
            return Err(ArchiveError::Truncated);
        }
        let mut block = [0; 512];
        // Like GNU tar and Go, take the end of the stream between members for the end of the archive.
        if !self.fill(&mut block)? || block.iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        self.headers += 1;
        if self.headers > self.max_members {
            return Err(ArchiveError::TooManyMembers(self.max_members));
        }
        let stated = unsigned(&tar::Header::from_byte_slice(&block).as_old().cksum)?;
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        if sum(&block[..148]) + sum(&block[156..]) + 8 * u64::from(b' ') != stated {
            return Err(ArchiveError::Header("wrong header checksum"));
        }
        Ok(Some(block))
    }

    /// Fills `block`; false if the stream ended before its first byte.
    fn fill(&mut self, block: &mut [u8]) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ArchiveError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        Ok(true)
    }

    /// Reads the data of a long name or PAX header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let size = usize::try_from(size).ok().filter(|&size| size <= MAX_EXTENSION);
        let size = size.ok_or(ArchiveError::Header("extended header too large"))?;
        let mut data = vec![0; size.next_multiple_of(BLOCK as usize)];
        if !data.is_empty() && !self.fill(&mut data)? {
            return Err(ArchiveError::Truncated);
        }
        data.truncate(size);
        Ok(data)
    }

    fn member(
        &mut self,
        header: &tar::Header,
        size: u64,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, ArchiveError> {
        let old = header.as_old();
        let path = pax.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match old.linkflag[0] {
            // Before ustar, a trailing slash made a directory.
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(ArchiveError::MemberType(char::from(other))),
        };
        let device = match header
            .as_ustar()
            .map(|h| (&h.dev_major, &h.dev_minor))
            .or(header.as_gnu().map(|h| (&h.dev_major, &h.dev_minor)))
        {
            Some((major, minor)) if matches!(kind, Kind::CharDevice | Kind::BlockDevice) => {
                (narrow(unsigned(major)?, "device number")?, narrow(unsigned(minor)?, "device number")?)
            }
            _ => (0, 0),
        };
        let stored = if kind == Kind::File { pax.size.unwrap_or(size) } else { 0 };
        if stored > i64::MAX as u64 {
            return Err(ArchiveError::Header("size out of range"));
        }
        let mut member = Member {
            path,
            kind,
            link: pax.link.or(long_link).unwrap_or_else(|| until_nul(&old.linkname).to_vec()),
            mode: (unsigned(&old.mode)? & 0o7777) as u32,
            uid: narrow(pax.uid.map_or_else(|| unsigned(&old.uid), Ok)?, "user id")?,
            gid: narrow(pax.gid.map_or_else(|| unsigned(&old.gid), Ok)?, "group id")?,
            mtime: pax.mtime.map_or_else(|| Ok((signed(&old.mtime)?, 0)), Ok)?,
            device,
            size: stored,
            xattrs: pax.xattrs,
            sparse: None,
        };
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK) - stored;
        if kind == Kind::File {
            self.sparse(header, &mut member, pax.sparse)?;
        }
        let valid = |name: &[u8]| name.len() <= MAX_PATH && !name.contains(&0);
        if !valid(&member.path) || !valid(&member.link) {
            return Err(ArchiveError::Header("name too long or with NUL"));
        }
        Ok(member)
    }

    /// Fills in size, name and segments of a sparse member in any of GNU tar's four formats.
    fn sparse(&mut self, header: &tar::Header, member: &mut Member, pax: PaxSparse) -> Result<(), ArchiveError> {
        let (map, size) = if header.as_old().linkflag[0] == b'S' {
            let gnu = header.as_gnu().ok_or(ArchiveError::Header("sparse member without GNU header"))?;
            (self.gnu_map(gnu)?, unsigned(&gnu.realsize)?)
        } else if let Some(size) = pax.size {
            (if pax.map_in_data { self.map_in_data()? } else { pax.map }, size)
        } else {
            return Ok(());
        };
        member.path = pax.name.unwrap_or(std::mem::take(&mut member.path));
        let (pairs, odd) = map.as_chunks::<2>();
        let mut end = 0u64;
        let mut total = 0u64;
        let mut segments = Vec::with_capacity(pairs.len());
        for &[offset, length] in pairs {
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
            end = next.ok_or(ArchiveError::Header("sparse map out of order"))?;
            total += length;
            if length > 0 {
                segments.push((offset, length));
            }
        }
        if !odd.is_empty() || total != self.left || size > i64::MAX as u64 {
            return Err(ArchiveError::Header("sparse map does not fit the data"));
        }
        member.size = size;
        member.sparse = Some(segments);
        Ok(())
    }

    fn gnu_map(&mut self, gnu: &tar::GnuHeader) -> Result<Vec<u64>, ArchiveError> {
        let mut map = Vec::new();
        let mut add = |entries: &[tar::GnuSparseHeader]| -> Result<(), ArchiveError> {
            for entry in entries.iter().filter(|entry| entry.offset[0] != 0 || entry.numbytes[0] != 0) {
                map.extend([unsigned(&entry.offset)?, unsigned(&entry.numbytes)?]);
            }
            if map.len() > 2 * MAX_SEGMENTS { Err(ArchiveError::Header("sparse map too large")) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.fill(block.as_mut_bytes())? {
                return Err(ArchiveError::Truncated);
            }
            add(&block.sparse)?;
            more = block.isextended[0] != 0;
        }
        Ok(map)
    }

    /// Version 1.0: decimal lines in front of the data, their number first, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<u64>, ArchiveError> {
        let (mut text, mut map) = (Vec::new(), Vec::new());
        let mut wanted = 1;
        while map.len() < wanted {
            let mut block = [0; 512];
            if self.left < BLOCK || !self.fill(&mut block)? {
                return Err(ArchiveError::Header("sparse map longer than the data"));
            }
            self.left -= BLOCK;
            for byte in block {
                if map.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    text.push(byte);
                    continue;
                }
                map.push(pax::number(&text)?);
                text.clear();
                if map.len() == 1 {
                    let pairs = usize::try_from(map[0]).ok().filter(|&pairs| pairs <= MAX_SEGMENTS);
                    wanted = 1 + 2 * pairs.ok_or(ArchiveError::Header("sparse map too large"))?;
                }
            }
        }
        map.remove(0);
        Ok(map)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.source.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn narrow(value: u64, what: &'static str) -> Result<u32, ArchiveError> {
    // 2^32 - 1 means "leave as it is" to chown.
    u32::try_from(value).ok().filter(|&id| id != u32::MAX).ok_or(ArchiveError::Header(what))
}

fn unsigned(field: &[u8]) -> Result<u64, ArchiveError> {
    u64::try_from(signed(field)?).map_err(|_| ArchiveError::Header("negative number"))
}

/// A numeric field: octal digits between spaces and NULs, nothing at all (zero), or big-endian two's complement whose
/// first bit is set as a mark (GNU's base-256).
fn signed(field: &[u8]) -> Result<i64, ArchiveError> {
    const BAD: ArchiveError = ArchiveError::Header("malformed number");
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { field[0] } else { field[0] & 0x7f };
        let start: i128 = if negative { -1 } else { 0 };
        let bytes = std::iter::once(first).chain(field[1..].iter().copied());
        let value = bytes.fold(start, |value, byte| (value << 8) | i128::from(byte));
        return i64::try_from(value).map_err(|_| BAD);
    }
    let padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let digits = field.iter().skip_while(|byte| padding(byte)).take_while(|byte| !padding(byte));
    digits.into_iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + i64::from(digit - b'0')).ok_or(BAD),
        _ => Err(BAD),
    })
}
