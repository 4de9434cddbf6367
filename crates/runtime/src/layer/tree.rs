//! Finds the directory a member belongs in, as the container will see it: through this layer and the layers below.
//!
//! Names are followed one component at a time in a private, otherwise unused directory; symlinks are followed as under
//! chroot (`..` and absolute targets stay inside). What comes out is a path free of symlinks, which the kernel is then
//! asked to open with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, so that even a mistake here cannot leave the target.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

/// Names longer or deeper than this could not be used inside a container either.
const MAX_REAL_PATH: usize = 3072;
const MAX_DEPTH: usize = 256;
const MAX_SYMLINKS: u32 = 40;

#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error(transparent)]
    System(#[from] Errno),
    #[error("a parent is not a directory")]
    NotADirectory,
    #[error("no such directory")]
    NotFound,
    #[error("too many symbolic links")]
    Symlinks,
    #[error("path too deep or too long")]
    TooDeep,
}

/// The layer being made and those below it, topmost first.
pub(super) struct Tree {
    upper: OwnedFd,
    lowers: Vec<OwnedFd>,
}

/// A directory of the layer being made: open, with its symlink-free path in the layer.
pub(super) struct Dir {
    pub fd: OwnedFd,
    pub path: PathBuf,
}

enum Entry {
    Directory,
    Symlink(OsString),
    Whiteout,
    Other,
}

/// A component of the real path and the lower layers that show through there.
struct Level {
    name: OsString,
    visible: Vec<usize>,
}

impl Tree {
    pub(super) fn open(upper: &Path, lowers: &[PathBuf]) -> Result<Self, Errno> {
        let open =
            |path: &Path| nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        Ok(Self { upper: open(upper)?, lowers: lowers.iter().map(|path| open(path)).collect::<Result<_, _>>()? })
    }

    pub(super) fn has_lowers(&self) -> bool {
        !self.lowers.is_empty()
    }

    /// Opens the directory that `names` lead to. With `create`, missing directories are made, with the attributes of
    /// the same directory in a lower layer (or 0755 root:root).
    pub(super) fn resolve(&self, names: &[&OsStr], create: bool) -> Result<Dir, ResolveError> {
        let mut levels: Vec<Level> = Vec::new();
        let mut pending: Vec<OsString> = names.iter().rev().map(OsString::from).collect();
        let mut followed = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                levels.pop();
                continue;
            }
            let path = real_path(&levels).join(&name);
            if levels.len() >= MAX_DEPTH || path.as_os_str().len() > MAX_REAL_PATH {
                return Err(ResolveError::TooDeep);
            }
            let all: Vec<usize> = (0..self.lowers.len()).collect();
            let visible = levels.last().map_or(&all, |level| &level.visible);
            match self.step(&path, visible, create)? {
                Step::Into(visible) => levels.push(Level { name, visible }),
                Step::Symlink(target) => {
                    followed += 1;
                    if followed > MAX_SYMLINKS {
                        return Err(ResolveError::Symlinks);
                    }
                    if target.as_bytes().starts_with(b"/") {
                        levels.clear();
                    }
                    let parts = target.as_bytes().rsplit(|&byte| byte == b'/');
                    pending.extend(
                        parts.filter(|part| !matches!(*part, b"" | b".")).map(|part| OsStr::from_bytes(part).into()),
                    );
                }
            }
        }
        let path = real_path(&levels);
        Ok(Dir { fd: open_beneath(&self.upper, &path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, path })
    }

    fn step(&self, path: &Path, visible: &[usize], create: bool) -> Result<Step, ResolveError> {
        match look(&self.upper, path)? {
            Some(Entry::Directory) if visible.is_empty() || is_opaque(&self.upper, path)? => Ok(Step::Into(Vec::new())),
            Some(Entry::Directory) => Ok(Step::Into(self.lower(path, visible)?.1)),
            Some(Entry::Symlink(target)) => Ok(Step::Symlink(target)),
            Some(Entry::Other) => Err(ResolveError::NotADirectory),
            Some(Entry::Whiteout) if !create => Err(ResolveError::NotFound),
            Some(Entry::Whiteout) => {
                unlinkat(&self.upper, path, UnlinkatFlags::NoRemoveDir)?;
                self.make(path, None)?;
                set_opaque(&open_beneath(&self.upper, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
                Ok(Step::Into(Vec::new()))
            }
            None => match self.lower(path, visible)? {
                (Some(Entry::Symlink(target)), _) => Ok(Step::Symlink(target)),
                _ if !create => Err(ResolveError::NotFound),
                (Some(Entry::Directory), below) => {
                    self.make(path, below.first().copied())?;
                    Ok(Step::Into(below))
                }
                (Some(Entry::Other), _) => Err(ResolveError::NotADirectory),
                (Some(Entry::Whiteout) | None, _) => {
                    self.make(path, None)?;
                    Ok(Step::Into(Vec::new()))
                }
            },
        }
    }

    /// What the lower layers show at `path`: the topmost entry and, if it is a directory, the layers merged in it.
    fn lower(&self, path: &Path, visible: &[usize]) -> Result<(Option<Entry>, Vec<usize>), ResolveError> {
        let mut merged = Vec::new();
        for &index in visible {
            match look(&self.lowers[index], path)? {
                None => {}
                Some(Entry::Directory) => {
                    merged.push(index);
                    if is_opaque(&self.lowers[index], path)? {
                        break;
                    }
                }
                Some(_) if !merged.is_empty() => break,
                Some(entry) => return Ok((Some(entry), Vec::new())),
            }
        }
        Ok((if merged.is_empty() { None } else { Some(Entry::Directory) }, merged))
    }

    /// Makes a directory, like that of the lower layer if one is given.
    fn make(&self, path: &Path, like: Option<usize>) -> Result<(), ResolveError> {
        mkdirat(&self.upper, path, Mode::from_bits_truncate(0o700))?;
        let made = open_beneath(&self.upper, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let Some(like) = like else {
            fchmodat(&self.upper, path, Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?;
            return Ok(());
        };
        let model = open_beneath(&self.lowers[like], path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let stat = nix::sys::stat::fstat(&model)?;
        fchown(&made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        copy_xattrs(&File::from(model), &File::from(made.try_clone().map_err(|_| Errno::EMFILE)?))?;
        Ok(nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(stat.st_mode))?)
    }
}

enum Step {
    Into(Vec<usize>),
    Symlink(OsString),
}

fn real_path(levels: &[Level]) -> PathBuf {
    levels.iter().map(|level| &level.name).collect()
}

/// Opens `path` below `dir` without passing a symlink or a mount point.
pub(super) fn open_beneath(dir: &impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(dir, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

fn look(root: &OwnedFd, path: &Path) -> Result<Option<Entry>, ResolveError> {
    let Some(stat) = stat_in(root, path)? else {
        return Ok(None);
    };
    Ok(Some(match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Entry::Directory,
        SFlag::S_IFLNK => Entry::Symlink(readlinkat(root, path)?),
        _ if is_whiteout(&stat) => Entry::Whiteout,
        _ => Entry::Other,
    }))
}

/// The entry itself, not what a symlink points to; none if it doesn't exist.
pub(super) fn stat_in(dir: &impl AsFd, path: &Path) -> Result<Option<FileStat>, Errno> {
    match fstatat(dir, path, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// overlayfs's mark for "removed here": a character device 0:0.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == 0
}

fn is_opaque(root: &OwnedFd, path: &Path) -> Result<bool, ResolveError> {
    let dir = open_beneath(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    Ok(xattr::get_deref(proc_path(&dir), OPAQUE).map_err(errno)?.is_some_and(|value| value == b"y"))
}

/// Hides what lower layers have in this directory.
pub(super) fn set_opaque(dir: &OwnedFd) -> Result<(), Errno> {
    xattr::set_deref(proc_path(dir), OPAQUE, b"y").map_err(errno)
}

/// A name by which calls that only know paths reach an open file, even an `O_PATH` one.
pub(super) fn proc_path(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

pub(super) fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn copy_xattrs(from: &File, to: &File) -> Result<(), Errno> {
    use xattr::FileExt;
    for name in from.list_xattr().map_err(errno)? {
        if name.as_bytes().starts_with(b"trusted.") || name == "security.selinux" {
            continue;
        }
        if let Some(value) = from.get_xattr(&name).map_err(errno)? {
            to.set_xattr(&name, &value).map_err(errno)?;
        }
    }
    Ok(())
}
