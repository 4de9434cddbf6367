//! Starting the runtime child, the short-lived process in which libcontainer works.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::unistd::{ForkResult, fork};

use crate::proto::{Code, Framer, Outcome};
use crate::verb::{CHILD_NAME, FIRST_FD};

/// A runtime child at work.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    socket: UnixStream,
    stderr: File,
}

/// Runs `exe` as a runtime child. It finds a socket for its report at [`FIRST_FD`] and the
/// container's standard streams, if any, behind it.
pub(super) fn spawn(exe: &Path, args: &[&OsStr], stdio: &[OwnedFd]) -> io::Result<Child> {
    let (socket, theirs) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    let stderr = memfd()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let text = |s: &OsStr| CString::new(s.as_bytes()).map_err(io::Error::from);
    let path = text(exe.as_os_str())?;
    let image = readonly_clone(&path).ok();
    let args = std::iter::once(OsStr::new(CHILD_NAME)).chain(args.iter().copied()).map(text);
    let args = args.collect::<io::Result<Vec<CString>>>()?;
    // Sources are moved out of the way of the numbers they are to get.
    let raw = [null.as_raw_fd(), null.as_raw_fd(), stderr.as_raw_fd(), theirs.as_raw_fd()];
    let raw = raw.into_iter().chain(stdio.iter().map(AsRawFd::as_raw_fd));
    let high = raw.map(move_high).collect::<io::Result<Vec<OwnedFd>>>()?;
    // SAFETY: a fork of a single-threaded process, whose child does nothing but execute.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Parent { child } => Ok(Child { pid: child.as_raw(), socket, stderr }),
        ForkResult::Child => execute(&path, image.as_ref(), &args, &high),
    }
}

/// The executable through a read-only mount that nothing else can reach. A container that gets at
/// the runtime child's `/proc/<pid>/exe` then cannot overwrite the file (CVE-2019-5736).
fn readonly_clone(path: &CString) -> io::Result<OwnedFd> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the strings and the attributes outlive the calls, whose sizes are right; the
    // descriptor is new and ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let tree = OwnedFd::from_raw_fd(fd as RawFd);
        let (empty, size) = (c"".as_ptr(), size_of::<MountAttr>());
        match libc::syscall(libc::SYS_mount_setattr, fd, empty, libc::AT_EMPTY_PATH, &attr, size) {
            0 => Ok(tree),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `image` is the executable's read-only clone, where the kernel can make one.
fn execute(path: &CString, image: Option<&OwnedFd>, args: &[CString], fds: &[OwnedFd]) -> ! {
    const { assert!(FIRST_FD == 3) };
    // SAFETY: system calls on plain values and on descriptors that are open.
    unsafe {
        for (fd, target) in fds.iter().zip(0..) {
            libc::dup2(fd.as_raw_fd(), target);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        for signal in super::IGNORED {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    if let Some(image) = image {
        // Comes back only when it fails; then by name, which tells why.
        let _ = nix::unistd::execveat(image, c"", args, &[] as &[CString], AtFlags::AT_EMPTY_PATH);
    }
    let failed = nix::unistd::execve(path, args, &[] as &[CString]);
    eprintln!("failed to execute {}: {}", path.to_string_lossy(), failed.unwrap_err());
    // SAFETY: ends this process without running what the parent registered for exit.
    unsafe { libc::_exit(127) }
}

fn move_high(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: duplicates a descriptor that is open; the result is ours.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 32) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(OwnedFd::from_raw_fd(new)),
        }
    }
}

fn memfd() -> io::Result<File> {
    // SAFETY: a constant name; the result is ours.
    unsafe {
        match libc::memfd_create(c"child-stderr".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}

impl Child {
    /// Its report, once it has exited with a wait status, and the terminal that came with it.
    pub(super) fn outcome(mut self, status: i32) -> (Outcome, Option<OwnedFd>) {
        let mut framer = Framer::default();
        while let Ok(true) = framer.read_from(&self.socket) {}
        if let Ok(Some(outcome)) = framer.take_frame::<Outcome>() {
            return (outcome, framer.take_fd());
        }
        let mut said = String::new();
        let _ = self.stderr.rewind().and_then(|()| (&self.stderr).take(4096).read_to_string(&mut said));
        let (code, _) = super::container::decode(status);
        let message = format!("the runtime child ended with status {code}: {}", said.trim());
        (Outcome::Failed { code: Code::Start, message }, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_cannot_be_overwritten_through_its_clone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        std::fs::write(&file, "original").unwrap();
        let clone = readonly_clone(&CString::new(file.as_os_str().as_bytes()).unwrap()).unwrap();
        let through = format!("/proc/self/fd/{}", clone.as_raw_fd());
        assert_eq!(std::fs::read_to_string(&through).unwrap(), "original");
        let refused = File::options().write(true).open(&through).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    }
}
