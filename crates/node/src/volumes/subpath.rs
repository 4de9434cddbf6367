//! `subPath`: a part of a volume, mounted beside it. Containers may change the volume meanwhile, so it is opened step
//! by step without ever leaving the volume, and what was opened is what is mounted.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};

/// Mounts `sub` of `volume` at `target`, made as file or directory. What is missing of it becomes directories. Blocks.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<(), String> {
    let part = open_inside(volume, sub).map_err(|e| format!("failed to prepare subPath {sub:?}: {e}"))?;
    mount_at(&part, target).map_err(|e| format!("failed to mount subPath {sub:?} at {}: {e}", target.display()))
}

fn open_inside(volume: &Path, sub: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    // The volume's own path is the node's; only below it others have a say. A volume may be a link to a directory.
    let root = open(volume, flags, Mode::empty())?;
    let mode = Mode::from_bits_truncate(fstat(&root)?.st_mode & 0o777);
    let mut walked = PathBuf::new();
    let mut part = root.try_clone()?;
    for component in Path::new(sub).components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it must not contain '..'")),
        };
        walked.push(name);
        let how =
            OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        part = match openat2(&root, &walked, how) {
            Err(Errno::ENOENT) => {
                make_directory(&part, name, mode)?;
                openat2(&root, &walked, how)?
            }
            other => other?,
        };
    }
    Ok(part)
}

fn make_directory(parent: &OwnedFd, name: &std::ffi::OsStr, mode: Mode) -> io::Result<()> {
    match mkdirat(parent, name, mode) {
        Err(Errno::EEXIST) => Ok(()),
        other => Ok(other?),
    }
}

fn mount_at(part: &OwnedFd, target: &Path) -> io::Result<()> {
    unmount(target)?;
    match is_directory(part)? {
        true => fs::create_dir_all(target)?,
        false => {
            fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
            fs::File::create(target)?;
        }
    }
    let source = self_fd(part.as_raw_fd());
    mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Takes away what an earlier run of the container has left.
fn unmount(target: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    while umount2(target, MntFlags::MNT_DETACH).is_ok() {}
    if meta.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
}

fn self_fd(fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{fd}"))
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_cannot_lead_out_of_its_volume() {
        let dir = tempfile::tempdir().expect("tempdir");
        let volume = dir.path().join("v");
        fs::create_dir(&volume).expect("volume");
        fs::write(volume.join("file"), "x").expect("file");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("link");
        std::os::unix::fs::symlink("..", volume.join("up")).expect("link");
        std::os::unix::fs::symlink("file", volume.join("in")).expect("link");
        for bad in ["out/x", "out", "up/v", "../v", "/etc"] {
            assert!(open_inside(&volume, bad).is_err(), "{bad}");
        }
        assert!(!is_directory(&open_inside(&volume, "in").expect("a link inside")).expect("type"));
        assert!(is_directory(&open_inside(&volume, "new/deep").expect("made")).expect("type"));
        assert!(volume.join("new/deep").is_dir());
    }
}
