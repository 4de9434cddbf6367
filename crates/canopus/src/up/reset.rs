//! `canopus reset`: stops what runs and removes what was made, in the order that lets go of it.

use super::{host, node};
use crate::cli::{CGROUP_ROOT, ResetArgs};
use anyhow::{Context, Result};
use canopus_net::podnetwork::{PodNetwork, PodNetworkConfig};
use canopus_net::proxy::Proxy;
use canopus_runtime::Runtime;
use std::path::{Path, PathBuf};

pub fn reset(args: ResetArgs) -> Result<()> {
    let dir = &args.data.data_dir;
    if !dir.exists() {
        return crate::cli::say(&format!("{} is not there: nothing to do\n", dir.display()));
    }
    host::require_root()?;
    let lock = host::lock(dir)?;
    let kept = host::cgroup_root(dir)?;
    let cgroup_root = args.cgroup_root.or(kept).unwrap_or_else(|| CGROUP_ROOT.into());
    if dir.join("runtime").exists() {
        let runtime =
            Runtime::open(node::runtime(dir, &cgroup_root)?).context("failed to open the container runtime")?;
        runtime.reset().context("failed to remove the containers")?;
    }
    let network = dir.join("node").join("network");
    if network.exists() {
        // Which addresses it had is no matter any more, but it does not open without.
        let pod_cidrs = vec!["10.244.0.0/24".parse().context("a literal is an address range")?];
        let config = PodNetworkConfig { bridge: node::BRIDGE.into(), pod_cidrs, mtu: None, state_dir: network };
        let network = PodNetwork::open(config).context("failed to open the pod network")?;
        network.cleanup().context("failed to remove the pod network")?;
        let mut proxy = Proxy::open().context("failed to open the service proxy")?;
        proxy.cleanup().context("failed to remove the service proxy's rules")?;
    }
    for mount in mounts_below(dir)? {
        nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("failed to unmount {}", mount.display()))?;
    }
    std::fs::remove_dir_all(dir).with_context(|| format!("failed to remove {}", dir.display()))?;
    drop(lock);
    Ok(())
}

/// What is mounted below `dir`, the innermost first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir.canonicalize().with_context(|| format!("failed to find {}", dir.display()))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("failed to read the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(&dir)).collect();
    below.reverse();
    Ok(below)
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte as char);
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn mount_points_with_blanks() {
        assert_eq!(super::unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(super::unescape(r"/plain\x"), r"/plain\x");
    }
}
