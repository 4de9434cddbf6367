//! The overlay mount of a container's root.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mount options must fit in a page, so directories are named by open files: `/proc/self/fd/123` needs 18 bytes of it.
pub(super) const MAX_LAYERS: usize = 200;

/// Where an overlay's changes go.
pub(super) struct Writable<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
}

/// Mounts `lowers` (topmost first) at `target`, read-only unless there is a place for changes.
pub(super) fn overlay(lowers: &[PathBuf], writable: Option<Writable<'_>>, target: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    let mut name = |path: &Path| -> io::Result<String> {
        let file = File::open(path)?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        files.push(file);
        Ok(name)
    };
    let lowers = lowers.iter().map(|path| name(path)).collect::<io::Result<Vec<_>>>()?.join(":");
    let Some(Writable { upper, work }) = writable else {
        return mount_overlay(target, MsFlags::MS_RDONLY, &format!("lowerdir={lowers}"));
    };
    let options = format!("lowerdir={lowers},upperdir={},workdir={}", name(upper)?, name(work)?);
    // Without `volatile` every unmount writes the whole file system back. A container's changes need not survive a
    // crash of the host: its containers are made anew then.
    match mount_overlay(target, MsFlags::empty(), &format!("{options},volatile")) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            mount_overlay(target, MsFlags::empty(), &options)
        }
        other => other,
    }
}

fn mount_overlay(target: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some("overlay"), target, Some("overlay"), flags, Some(options))?)
}

/// Whether something is mounted at `path`.
pub(super) fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| std::fs::symlink_metadata(path).ok().map(|found| found.dev());
    path.parent().is_some_and(|parent| device(path) != device(parent)) && path.exists()
}

/// Unmounts whatever is mounted at `path`, even if in use, however often.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
