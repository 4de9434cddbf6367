//! What `canopus up` finds out about, and lays down on, the host it runs on.

use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The address of the interface with the default route. Asks the kernel's routing table; nothing is sent.
pub fn node_ip() -> Result<IpAddr> {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    };
    match ask() {
        Ok(address) if !address.ip().is_loopback() => Ok(address.ip()),
        _ => bail!("this host has no default route to tell its address by: say --node-ip ADDRESS"),
    }
}

/// The host's name as a Node's name: lower case, as upstream.
pub fn node_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("failed to read the host name")?;
    let name = name.to_string_lossy().trim().to_lowercase();
    match canopus_api::names::dns1123_subdomain(&name).first() {
        None => Ok(name),
        Some(why) => bail!("the host name {name:?} cannot name a Node: {why}. Say --node-name NAME"),
    }
}

/// Only root can make containers.
pub fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("this must run as root: containers, networks and mounts need it (try it with sudo)")
}

/// The program behind each pod, built by this crate's build script.
const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/canopus-shim"));

/// Puts the shim into the data directory, where it stays while pods need it, whatever becomes of this binary.
pub fn install_shim(data_dir: &Path) -> Result<PathBuf> {
    let target = data_dir.join("bin").join("canopus-shim");
    if fs::read(&target).is_ok_and(|there| there == SHIM) {
        return Ok(target);
    }
    private_dir(&data_dir.join("bin"))?;
    // Running shims keep the old file's inode.
    private_file(&target, SHIM, 0o700)?;
    Ok(target)
}

/// A directory that only root can enter.
pub fn private_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("failed to set the mode of {}", path.display()))
}

/// Writes a file that only root can read, all at once.
pub fn private_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        // One left by a crash may have another mode.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

/// Holds the data directory for one process. Released when dropped or when the process ends.
pub fn lock(data_dir: &Path) -> Result<nix::fcntl::Flock<fs::File>> {
    use std::io::Write;
    let path = data_dir.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("failed to open {}", path.display()))?;
    let Ok(mut lock) = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) else {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let holder = if holder.is_empty() { "another process".into() } else { format!("process {}", holder.trim()) };
        bail!(
            "{} is in use by a running canopus ({holder}): stop that one first, or name another --data-dir",
            data_dir.display()
        );
    };
    // Only for the message above.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

const CGROUP_ROOT: &str = "cgroup-root";

/// The control group that this data directory's pods are in; None if no cluster has run on it.
pub fn cgroup_root(data_dir: &Path) -> Result<Option<String>> {
    let path = data_dir.join(CGROUP_ROOT);
    match fs::read_to_string(&path) {
        Ok(name) => Ok(Some(name.trim().into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
}

/// Remembers the control group for `reset`. It stays the same as long as the data does.
pub fn keep_cgroup_root(data_dir: &Path, name: &str) -> Result<()> {
    match cgroup_root(data_dir)? {
        Some(kept) if kept == name => Ok(()),
        Some(kept) => {
            bail!("the pods of {} are in the control group {kept:?}: say --cgroup-root {kept}", data_dir.display())
        }
        None => private_file(&data_dir.join(CGROUP_ROOT), format!("{name}\n").as_bytes(), 0o600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let refused = lock(dir.path()).unwrap_err().to_string();
        let wanted = format!("is in use by a running canopus (process {}): stop", std::process::id());
        assert!(refused.contains(&wanted), "{refused}");
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn the_control_group_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cgroup_root(dir.path()).unwrap(), None);
        keep_cgroup_root(dir.path(), "mine").unwrap();
        keep_cgroup_root(dir.path(), "mine").unwrap();
        assert_eq!(cgroup_root(dir.path()).unwrap().as_deref(), Some("mine"));
        assert!(keep_cgroup_root(dir.path(), "other").unwrap_err().to_string().ends_with("say --cgroup-root mine"));
    }
}
