//! Where an image comes from: an archive unpacked to numbered files, or a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use canopus_runtime::layer::archive::{ArchiveError, Kind, Reader};
use canopus_runtime::layer::{Digest, Hashing, Limits, TooManyBytes, decompress};
use canopus_runtime::snapshots::TempDir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;

use crate::error::{Context, ImageError, Result};

/// Most bytes of an index, a manifest or a configuration.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;
const MAX_LINKS: u32 = 8;

/// The files of an image by name.
pub(crate) enum Source {
    Staged { members: HashMap<String, Staged>, _temp: TempDir },
    Directory { dir: OwnedFd, path: PathBuf },
}

pub(crate) enum Staged {
    File(PathBuf),
    /// `docker save` makes a layer that two images share a symlink in one of them.
    Link(String),
}

impl Source {
    /// Stages the files of an archive, which may be compressed, in `temp`. Names in the archive never become paths.
    pub(crate) fn archive(stream: impl Read, temp: TempDir, limits: &Limits) -> Result<Self> {
        let stream = Hashing::new(decompress(stream).map_err(ImageError::Read)?, limits.bytes);
        let mut reader = Reader::new(stream, limits.members);
        let mut members = HashMap::new();
        while let Some(member) = reader.next_member().map_err(archive_error)? {
            let Some(name) = std::str::from_utf8(&member.path).ok().and_then(|name| clean(name, "")) else { continue };
            let link = || std::str::from_utf8(&member.link).ok();
            let staged = match member.kind {
                Kind::File if member.sparse.is_some() => return Err(ImageError::Invalid("sparse file in the archive")),
                Kind::File => {
                    let path = temp.path().join(members.len().to_string());
                    let mut file = File::create_new(&path).context("create", &path)?;
                    io::copy(&mut (&mut reader).take(member.size), &mut file).map_err(read_error)?;
                    Staged::File(path)
                }
                Kind::HardLink => match link().and_then(|link| clean(link, "")) {
                    Some(link) => Staged::Link(link),
                    None => continue,
                },
                Kind::Symlink => match link().and_then(|link| clean(link, &name)) {
                    Some(link) => Staged::Link(link),
                    None => continue,
                },
                _ => continue,
            };
            members.insert(name, staged);
        }
        Ok(Self::Staged { members, _temp: temp })
    }

    pub(crate) fn directory(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty()).map_err(io::Error::from).context("open", path)?;
        Ok(Self::Directory { dir, path: path.into() })
    }

    /// Opens a regular file; none if there is no such name.
    pub(crate) fn open(&self, name: &str) -> Result<Option<File>> {
        match self {
            Self::Staged { members, .. } => {
                let mut member = clean(name, "").and_then(|name| members.get(&name));
                for _ in 0..MAX_LINKS {
                    match member {
                        Some(Staged::Link(target)) => member = members.get(target),
                        Some(Staged::File(path)) => return File::open(path).context("open", path).map(Some),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
            Self::Directory { dir, path } => {
                let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
                let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).resolve(resolve);
                let file = match openat2(dir, name, how) {
                    Ok(file) => File::from(file),
                    Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                    Err(error) => return Err(io::Error::from(error)).context("open", &path.join(name)),
                };
                let found = file.metadata().context("read", &path.join(name))?;
                if !found.is_file() {
                    return Err(ImageError::Invalid("not a regular file"));
                }
                Ok(Some(file))
            }
        }
    }

    /// Reads a document whole.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(ImageError::Read)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { name: name.into(), size: bytes.len() as u64, limit: MAX_DOCUMENT });
        }
        Ok(Some(bytes))
    }

    /// Opens a blob of an OCI layout after checking its size and digest.
    pub(crate) fn blob(&self, digest: &Digest, size: u64) -> Result<File> {
        let name = blob_name(digest);
        let mut file = self.open(&name)?.ok_or_else(|| ImageError::Missing(name.clone()))?;
        let mut hashing = Hashing::new(&file, u64::MAX);
        io::copy(&mut hashing, &mut io::sink()).map_err(ImageError::Read)?;
        let (found, length) = hashing.finish();
        if found != *digest {
            return Err(ImageError::Digest { name, wanted: *digest, found });
        }
        if length != size {
            return Err(ImageError::Invalid("a blob's size is not what its descriptor says"));
        }
        file.rewind().map_err(ImageError::Read)?;
        Ok(file)
    }

    /// Reads a document of an OCI layout after checking its size and digest.
    pub(crate) fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        let name = blob_name(digest);
        if size > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { name, size, limit: MAX_DOCUMENT });
        }
        let bytes = self.read(&name)?.ok_or_else(|| ImageError::Missing(name.clone()))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(ImageError::Digest { name, wanted: *digest, found });
        }
        if bytes.len() as u64 != size {
            return Err(ImageError::Invalid("a blob's size is not what its descriptor says"));
        }
        Ok(bytes)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document { name: name.into(), source })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn archive_error(error: ArchiveError) -> ImageError {
    match error {
        ArchiveError::Read(error) => read_error(error),
        other => ImageError::Archive(other),
    }
}

fn read_error(error: io::Error) -> ImageError {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<TooManyBytes>()) {
        Some(TooManyBytes(limit)) => ImageError::ArchiveTooLarge(*limit),
        None => ImageError::Read(error),
    }
}

/// A name without `.`, `..` and needless slashes, relative to the file `from`; none if it leads out of the archive.
fn clean(name: &str, from: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
