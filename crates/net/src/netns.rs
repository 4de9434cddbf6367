//! Running code in a given network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

/// An open reference to a network namespace; it stays valid while this value lives, whatever happens to the path.
#[derive(Debug)]
pub struct NetNs(File);

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> io::Result<NetNs> {
        NetNs::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens a bind-mounted namespace or `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> io::Result<NetNs> {
        File::open(path).map(NetNs)
    }

    /// A new, empty namespace, which lasts as long as this value or a process inside.
    pub fn create() -> io::Result<NetNs> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                NetNs::current()
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A path by which this process can open the namespace while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Runs `work` on a fresh thread that has entered this namespace, and waits for it. Sockets it opens, processes it
    /// starts and `/proc/sys/net` as it sees it belong to the namespace; the calling thread never leaves its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
