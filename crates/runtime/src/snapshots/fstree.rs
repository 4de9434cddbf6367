//! Removing and measuring directory trees that a container may have made as deep and odd as it liked.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What a tree takes on disk; hard links count once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Removes directory `name` of `parent` and all below it, without following symlinks. Needs neither a path, a file
/// descriptor nor a stack frame per level: subdirectories are moved up into `name` until none is left.
pub(crate) fn remove(parent: &impl AsFd, name: &OsStr) -> io::Result<()> {
    let top = openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut moved = 0u64;
    loop {
        let entries = names(&top)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if unlink(&top, &entry)? {
                continue;
            }
            let sub = openat(&top, entry.as_c_str(), DIRECTORY, Mode::empty())?;
            for below in names(&sub)? {
                if !unlink(&sub, &below)? {
                    move_up(&sub, &below, &top, &mut moved)?;
                }
            }
            unlinkat(&top, entry.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

/// Unlinks what isn't a directory, and empty directories; false for any other directory.
fn unlink(dir: &OwnedFd, name: &CString) -> Result<bool, Errno> {
    match unlinkat(dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(error),
    }
    match unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a directory up under a name that is free there.
fn move_up(from: &OwnedFd, name: &CString, to: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        match renameat(from, name.as_c_str(), to, format!(".{moved}").as_str()) {
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            other => return other,
        }
    }
}

fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut dir = Dir::openat(dir, ".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Measures the tree at `root`, which may change meanwhile. What lies deeper than a path can name isn't counted.
pub(crate) fn usage(root: &Path) -> io::Result<Usage> {
    let root = nix::fcntl::open(root, DIRECTORY, Mode::empty())?;
    let mut linked = HashSet::new();
    let mut usage = Usage::default();
    let mut count = |stat: &FileStat| {
        if stat.st_nlink < 2 || is_dir(stat) || linked.insert((stat.st_dev, stat.st_ino)) {
            usage += Usage { bytes: u64::try_from(stat.st_blocks).unwrap_or_default() * 512, inodes: 1 };
        }
    };
    count(&nix::sys::stat::fstat(&root)?);
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let dir = match openat(&root, &path, DIRECTORY, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => continue,
            Err(error) => return Err(error.into()),
        };
        for name in names(&dir)? {
            match fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    count(&stat);
                    if is_dir(&stat) {
                        pending.push(path.join(OsStr::from_bytes(name.to_bytes())));
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(usage)
}

fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::mkdirat;

    #[test]
    fn trees_deeper_than_any_path_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        let parent = nix::fcntl::open(temp.path(), DIRECTORY, Mode::empty()).unwrap();
        let mut dir = parent.try_clone().unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        for _ in 0..6000 {
            dir = openat(&dir, "d", DIRECTORY, Mode::empty()).unwrap();
            mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
            nix::unistd::symlinkat("/", &dir, ".1").unwrap();
        }
        assert!(usage(&temp.path().join("d")).unwrap().inodes > 1000);
        remove(&parent, OsStr::new("d")).unwrap();
        assert!(!temp.path().join("d").exists());
    }

    #[test]
    fn hard_links_count_once() {
        let temp = tempfile::tempdir().unwrap();
        let empty = usage(temp.path()).unwrap();
        std::fs::write(temp.path().join("a"), vec![1; 8192]).unwrap();
        std::fs::hard_link(temp.path().join("a"), temp.path().join("b")).unwrap();
        let full = usage(temp.path()).unwrap();
        assert_eq!((full.inodes - empty.inodes, full.bytes - empty.bytes), (1, 8192));
    }
}
