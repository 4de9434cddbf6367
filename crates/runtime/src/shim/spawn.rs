//! Starting the runtime child, the short-lived process in which libcontainer works.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{ForkResult, fork};

use crate::child::{CHILD_NAME, FIRST_FD};
use crate::proto::{Code, Framer, Outcome};

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
    let args = std::iter::once(OsStr::new(CHILD_NAME)).chain(args.iter().copied()).map(text);
    let args = args.collect::<io::Result<Vec<CString>>>()?;
    // Sources are moved out of the way of the numbers they are to get.
    let raw = [null.as_raw_fd(), null.as_raw_fd(), stderr.as_raw_fd(), theirs.as_raw_fd()];
    let raw = raw.into_iter().chain(stdio.iter().map(AsRawFd::as_raw_fd));
    let high = raw.map(move_high).collect::<io::Result<Vec<OwnedFd>>>()?;
    // SAFETY: a fork of a single-threaded process, whose child does nothing but execute.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Parent { child } => Ok(Child { pid: child.as_raw(), socket, stderr }),
        ForkResult::Child => execute(&path, &args, &high),
    }
}

fn execute(path: &CString, args: &[CString], fds: &[OwnedFd]) -> ! {
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
