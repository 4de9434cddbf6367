//! Puts single members in place.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::LayerError;
use super::archive::{Kind, Member, Reader};
use super::tree::{Dir, ResolveError, Tree, errno, is_whiteout, open_beneath, proc_path, set_opaque, stat_in};
use crate::snapshots::fstree;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Names aufs kept for itself; they mean nothing outside it.
const AUFS: &[u8] = b".wh..wh.";

pub(super) struct Placer {
    tree: Tree,
    target: PathBuf,
    /// The parent of the member before, which is mostly that of the next one too.
    parent: Option<(Vec<u8>, Dir)>,
    /// Times of directories, set when nothing is added to them any more.
    times: Vec<(PathBuf, (i64, u32))>,
    max_file: u64,
    buffer: Vec<u8>,
}

/// Why a member could not be placed, before its name is added.
enum Failure {
    Refused(&'static str),
    System(io::Error),
    Read(io::Error),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::System(error) => error.into(),
            ResolveError::NotADirectory => Self::Refused("a parent is not a directory"),
            ResolveError::NotFound => Self::Refused("no such directory in this layer"),
            ResolveError::Symlinks => Self::Refused("too many symbolic links"),
            ResolveError::TooDeep => Self::Refused("path too deep or too long"),
        }
    }
}

impl Placer {
    pub(super) fn new(target: &Path, lowers: &[PathBuf], max_file: u64) -> Result<Self, LayerError> {
        let tree = Tree::open(target, lowers).map_err(|source| LayerError::Open { path: target.into(), source })?;
        Ok(Self { tree, target: target.into(), parent: None, times: Vec::new(), max_file, buffer: vec![0; 128 << 10] })
    }

    /// Places a member whose data `reader` gives.
    pub(super) fn place<R: Read>(&mut self, member: &Member, reader: &mut Reader<R>) -> Result<(), LayerError> {
        self.try_place(member, reader).map_err(|failure| {
            let path = || String::from_utf8_lossy(&member.path).into_owned();
            match failure {
                Failure::Refused(reason) => LayerError::Refused { path: path(), reason },
                Failure::System(source) => LayerError::Create { path: path(), source },
                Failure::Read(error) => error.into(),
            }
        })
    }

    fn try_place<R: Read>(&mut self, member: &Member, reader: &mut Reader<R>) -> Result<(), Failure> {
        let names = components(&member.path)?;
        let Some((name, parents)) = names.split_last() else {
            return self.root(member);
        };
        let (name, parents) = (*name, parents.to_vec());
        if parents.iter().any(|parent| parent.as_bytes().starts_with(WHITEOUT)) {
            return match parents.iter().any(|parent| parent.as_bytes().starts_with(AUFS)) {
                true => Ok(()),
                false => Err(Failure::Refused("inside a whiteout")),
            };
        }
        let key = parents.iter().flat_map(|parent| [parent.as_bytes(), b"/"]).collect::<Vec<_>>().concat();
        let dir = match self.parent.take() {
            Some((known, dir)) if known == key => dir,
            _ => self.tree.resolve(&parents, true)?,
        };
        let replaced = if name.as_bytes().starts_with(WHITEOUT) {
            self.whiteout(&dir, name)?;
            false
        } else {
            self.put(&dir, name, member, reader)?
        };
        // What was replaced may be part of the way to the remembered parent: look the next one up again.
        if !replaced {
            self.parent = Some((key, dir));
        }
        Ok(())
    }

    /// `/` itself: only its attributes.
    fn root(&mut self, member: &Member) -> Result<(), Failure> {
        if member.kind != Kind::Directory {
            return Err(Failure::Refused("the root is not a directory"));
        }
        let root = self.tree.resolve(&[], false)?;
        self.attributes(&root.fd, member)?;
        self.times.push((PathBuf::new(), member.mtime));
        Ok(())
    }

    /// Turns an OCI whiteout into overlayfs's form. It hides lower layers only, never this layer's members.
    fn whiteout(&self, dir: &Dir, name: &OsStr) -> Result<(), Failure> {
        if !self.tree.has_lowers() {
            return Ok(());
        }
        if name.as_bytes() == OPAQUE_WHITEOUT {
            return Ok(set_opaque(&dir.fd)?);
        }
        let hidden = &name.as_bytes()[WHITEOUT.len()..];
        if name.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Failure::Refused("a whiteout of nothing"));
        }
        let hidden = Path::new(OsStr::from_bytes(hidden));
        match stat_in(&dir.fd, hidden)? {
            None => Ok(mknodat(&dir.fd, hidden, SFlag::S_IFCHR, Mode::empty(), 0)?),
            Some(stat) if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() => {
                Ok(set_opaque(&open_beneath(&dir.fd, hidden, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?)
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes the member; true if something else had to go for it.
    fn put<R: Read>(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<bool, Failure> {
        let path = Path::new(name);
        let before = stat_in(&dir.fd, path)?;
        let is_dir = |mode: u32| mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let merge = member.kind == Kind::Directory && before.is_some_and(|stat| is_dir(stat.st_mode));
        // A hard link's target is looked up first: it may be the very thing that is replaced.
        let target = if member.kind == Kind::HardLink { Some(self.link_target(dir, name, member)?) } else { None };
        let replaced = match before {
            Some(_) if merge => false,
            Some(stat) if is_dir(stat.st_mode) => {
                fstree::remove(&dir.fd, name)?;
                true
            }
            Some(_) => {
                unlinkat(&dir.fd, path, UnlinkatFlags::NoRemoveDir)?;
                true
            }
            None => false,
        };
        match member.kind {
            Kind::Directory => self.directory(dir, path, merge, replaced)?,
            Kind::File => self.file(dir, path, member, reader)?,
            Kind::HardLink => {
                let (from, link) = target.ok_or(Failure::Refused("hard link without target"))?;
                linkat(&from.fd, link.as_os_str(), &dir.fd, path, LinkatFlags::empty())?;
                return Ok(replaced);
            }
            Kind::Symlink => {
                if member.link.is_empty() {
                    return Err(Failure::Refused("symlink without target"));
                }
                symlinkat(OsStr::from_bytes(&member.link), &dir.fd, path)?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.device(dir, path, member)?,
        }
        let made = open_beneath(&dir.fd, path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        self.attributes(&made, member)?;
        match member.kind {
            Kind::Directory => self.times.push((dir.path.join(path), member.mtime)),
            _ => set_time(&dir.fd, path, member.mtime)?,
        }
        Ok(replaced)
    }

    /// The directory and name of a hard link's target: something in this very layer, not a directory.
    fn link_target(&self, dir: &Dir, name: &OsStr, member: &Member) -> Result<(Dir, std::ffi::OsString), Failure> {
        let names = components(&member.link)?;
        let (last, parents) = names.split_last().ok_or(Failure::Refused("hard link to the root"))?;
        let from = self.tree.resolve(parents, false)?;
        let stat = stat_in(&from.fd, Path::new(last))?
            .ok_or(Failure::Refused("the hard link's target is not in this layer"))?;
        if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() || is_whiteout(&stat) {
            return Err(Failure::Refused("the hard link's target is a directory or was removed"));
        }
        if from.path == dir.path && *last == name {
            return Err(Failure::Refused("hard link to itself"));
        }
        if from.path.starts_with(dir.path.join(name)) {
            return Err(Failure::Refused("hard link into what it replaces"));
        }
        Ok((from, last.into()))
    }

    fn directory(&self, dir: &Dir, path: &Path, merge: bool, replaced: bool) -> Result<(), Failure> {
        if !merge {
            mkdirat(&dir.fd, path, Mode::from_bits_truncate(0o700))?;
        }
        if replaced && self.tree.has_lowers() {
            // A whiteout or a file stood here, so nothing of the lower directory may come through.
            set_opaque(&open_beneath(&dir.fd, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        }
        Ok(())
    }

    fn device(&self, dir: &Dir, path: &Path, member: &Member) -> Result<(), Failure> {
        let kind = match member.kind {
            Kind::CharDevice if member.device == (0, 0) => {
                return Err(Failure::Refused("device 0:0 is overlayfs's whiteout"));
            }
            Kind::CharDevice => SFlag::S_IFCHR,
            Kind::BlockDevice => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let device = makedev(member.device.0.into(), member.device.1.into());
        Ok(mknodat(&dir.fd, path, kind, Mode::empty(), device)?)
    }

    fn file<R: Read>(
        &mut self,
        dir: &Dir,
        path: &Path,
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<(), Failure> {
        if member.size > self.max_file {
            return Err(Failure::Refused("file too large"));
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file: File = nix::fcntl::openat(&dir.fd, path, flags, Mode::from_bits_truncate(0o600))?.into();
        let whole = [(0, member.size)];
        for &(offset, length) in member.sparse.as_deref().unwrap_or(&whole) {
            let mut position = offset;
            while position < offset + length {
                let want = usize::try_from(offset + length - position).unwrap_or(usize::MAX).min(self.buffer.len());
                let read = match reader.read(&mut self.buffer[..want]) {
                    Ok(0) => return Err(Failure::Read(io::ErrorKind::UnexpectedEof.into())),
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Failure::Read(error)),
                };
                file.write_all_at(&self.buffer[..read], position)?;
                position += read as u64;
            }
        }
        if member.sparse.is_some() {
            file.set_len(member.size)?;
        }
        Ok(())
    }

    /// Owner, then xattrs and mode, both of which a change of owner clears.
    fn attributes(&self, made: &OwnedFd, member: &Member) -> Result<(), Failure> {
        let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        fchownat(made, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
        let path = proc_path(made);
        for (name, value) in &member.xattrs {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                return Err(Failure::Refused("it has overlayfs's own attributes"));
            }
            // SELinux labels are the host policy's business.
            if name == b"security.selinux" {
                continue;
            }
            match xattr::set_deref(&path, OsStr::from_bytes(name), value).map_err(errno) {
                // As containerd: an attribute that this file system or kind of file cannot have is left out.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(Errno::EPERM) if member.kind != Kind::File && member.kind != Kind::Directory => {}
                Err(error) => return Err(error.into()),
            }
        }
        if member.kind != Kind::Symlink {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(member.mode);
            std::fs::set_permissions(&path, mode)?;
        }
        Ok(())
    }

    /// Sets the times of directories, deepest changes included.
    pub(super) fn finish(&mut self) -> Result<(), LayerError> {
        let root = self.tree.resolve(&[], false).map_err(|error| self.finish_error(Failure::from(error)))?;
        for (path, time) in std::mem::take(&mut self.times) {
            // It may have been replaced since; then there is nothing to do.
            let Ok(dir) = open_beneath(&root.fd, &path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else {
                continue;
            };
            set_time(&dir, Path::new("."), time).map_err(|error| self.finish_error(error.into()))?;
        }
        Ok(())
    }

    fn finish_error(&self, failure: Failure) -> LayerError {
        let path = self.target.display().to_string();
        match failure {
            Failure::Refused(reason) => LayerError::Refused { path, reason },
            Failure::System(source) | Failure::Read(source) => LayerError::Create { path, source },
        }
    }
}

fn set_time(dir: &OwnedFd, path: &Path, (seconds, nanoseconds): (i64, u32)) -> Result<(), Errno> {
    let time = TimeSpec::new(seconds, nanoseconds.into());
    utimensat(dir, path, &time, &time, UtimensatFlags::NoFollowSymlink)
}

/// The names in a path, which may be absolute; `..` is refused: no builder writes it, and its meaning is disputed.
fn components(path: &[u8]) -> Result<Vec<&OsStr>, Failure> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names
        .map(|name| match name {
            b".." => Err(Failure::Refused("`..` in a name")),
            name if name.len() > 255 => Err(Failure::Refused("name too long")),
            name => Ok(OsStr::from_bytes(name)),
        })
        .collect()
}
