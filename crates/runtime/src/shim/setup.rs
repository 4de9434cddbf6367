//! A pod's namespaces, made by the shim for itself and so kept by its life.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::spec::{PidMode, SandboxSpec};

const DEFAULT_SHM: u64 = 64 << 20;

/// Unshares, configures and publishes the namespaces. Returns the pod init's pid if there is one.
pub(super) fn namespaces(dir: &Path, spec: &SandboxSpec) -> io::Result<Option<i32>> {
    let mut flags = CloneFlags::empty();
    if !spec.host_network {
        // Pods on the host's network have its host name as well.
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).map_err(|e| said("unshare namespaces", e.into()))?;
    if !spec.host_network {
        if !spec.hostname.is_empty() {
            nix::unistd::sethostname(&spec.hostname).map_err(|e| said("set the host name", e.into()))?;
        }
        loopback_up().map_err(|e| said("bring the loopback device up", e))?;
        publish_netns(&dir.join("netns")).map_err(|e| said("publish the network namespace", e))?;
    }
    if !spec.host_ipc {
        shm(&dir.join("shm"), spec.shm_size.unwrap_or(DEFAULT_SHM)).map_err(|e| said("mount /dev/shm", e))?;
    }
    for (name, value) in &spec.sysctls {
        sysctl(name, value).map_err(|e| said(&format!("set sysctl {name}"), e))?;
    }
    match spec.pid {
        PidMode::Pod => spawn_init().map(Some).map_err(|e| said("start the pod's init process", e)),
        PidMode::Container | PidMode::Host => Ok(None),
    }
}

fn said(what: &str, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("failed to {what}: {e}"))
}

fn publish_netns(path: &Path) -> io::Result<()> {
    File::create(path)?;
    mount(Some("/proc/self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn shm(path: &Path, size: u64) -> io::Result<()> {
    fs::create_dir(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={size}");
    mount(Some("shm"), path, Some("tmpfs"), flags, Some(options.as_str()))?;
    Ok(())
}

/// Writes `/proc/sys/…`. `.` separates the parts unless the name is spelled with `/`.
fn sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a sysctl name"));
    }
    fs::write(Path::new("/proc/sys").join(path), value)
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: plain socket and ioctl calls on a zeroed request that outlives them.
    unsafe {
        let raw = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(raw);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Process 1 of a shared process namespace: reaps orphans, dies with the shim. Forked, not
/// executed, so that it costs a few pages. `unshare` won't do: all later children would follow.
fn spawn_init() -> io::Result<i32> {
    let flags = libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: a fork of a single-threaded process; the child never returns from `run_init`.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => run_init(),
        pid => Ok(pid as i32),
    }
}

fn run_init() -> ! {
    let name = CString::from(c"canopus-init");
    // SAFETY: system calls on plain values; signal sets are initialised before use.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::close_range(3, libc::c_uint::MAX, 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        loop {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            libc::sigwaitinfo(&set, std::ptr::null_mut());
        }
    }
}
