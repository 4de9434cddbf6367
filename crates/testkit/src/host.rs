//! A host made of a network namespace: an uplink with an address, nothing else.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed, with everything in it, when dropped.
pub struct Host {
    name: String,
    ip: String,
    gateway: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Runs a command that is part of a test's set-up; panics with its output when it fails.
pub(crate) fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Host {
    /// A namespace with `lo` up and an interface that has a default route through a peer outside.
    pub fn new() -> Host {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id() % 10_000 * 10 + n % 10;
        let name = format!("canopus-{id}");
        let ip = format!("10.{}.{}.2", 200 + id / 256 % 50, id % 256);
        let gateway = format!("10.{}.{}.1", 200 + id / 256 % 50, id % 256);
        let (outside, inside) = (format!("cno{id}"), format!("cni{id}"));
        let host = Host { name: name.clone(), ip: ip.clone(), gateway: gateway.clone() };
        let ip_command = |args: &[&str]| must(Command::new("ip").args(args));
        ip_command(&["netns", "add", &name]);
        ip_command(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", &name]);
        ip_command(&["addr", "add", &format!("{gateway}/24"), "dev", &outside]);
        ip_command(&["link", "set", &outside, "up"]);
        ip_command(&["-n", &name, "addr", "add", &format!("{ip}/24"), "dev", &inside]);
        ip_command(&["-n", &name, "link", "set", "lo", "up"]);
        ip_command(&["-n", &name, "link", "set", &inside, "up"]);
        ip_command(&["-n", &name, "route", "add", "default", "via", &gateway]);
        host
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// The address of the world outside, as this host sees it; the test itself can listen on it.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// A command that runs on this host. Not `ip netns exec`, which hides the cgroup file systems.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Deleting the namespace takes the veth pair along.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
