//! The node's own address allocation.
//!
//! One symbolic link per address in use, named after the address and pointing at the pod: creating one is a single
//! atomic system call that fails when the address is taken, so a crash leaves either an allocation or none. Nothing is
//! synced to disk: after a power failure no pod is left that could hold an address.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

const CURSOR: &str = "last-";

/// Why an address could not be allocated or released.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    #[error("no addresses available in range {0}")]
    Exhausted(IpNet),
    #[error("pod id {0:?} is not 1 to 200 characters of a-z, A-Z, 0-9, '-', '_' and '.'")]
    PodId(String),
    #[error("pod CIDR {0} is too small: it holds no address beside the gateway's")]
    Range(IpNet),
    #[error("failed to access address state {path}")]
    State {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Allocations of this node, in memory and on disk. A pod has one address of each range.
#[derive(Debug)]
pub struct Ipam {
    dir: PathBuf,
    ranges: Vec<Range>,
    pods: BTreeMap<String, Vec<IpAddr>>,
    used: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Range {
    net: IpNet,
    first: u128,
    last: u128,
    /// The address given out most recently: the search goes on behind it, so that a released one rests.
    cursor: u128,
}

impl Ipam {
    /// Opens the state in `dir` (created if missing) for these ranges, which may differ from those of the last run:
    /// addresses outside them stay known until released.
    pub fn open(dir: &Path, cidrs: &[IpNet]) -> Result<Ipam, IpamError> {
        fs::create_dir_all(dir).map_err(|source| state_error(dir, source))?;
        let mut ipam = Ipam { dir: dir.into(), ranges: Vec::new(), pods: BTreeMap::new(), used: BTreeSet::new() };
        for net in cidrs {
            ipam.ranges.push(Range::open(dir, net.trunc())?);
        }
        for entry in fs::read_dir(dir).map_err(|source| state_error(dir, source))? {
            let path = entry.map_err(|source| state_error(dir, source))?.path();
            let address = path.file_name().and_then(|name| name.to_str()?.parse::<IpAddr>().ok());
            if let (Some(address), Ok(target)) = (address, fs::read_link(&path)) {
                ipam.used.insert(address);
                ipam.pods.entry(target.to_string_lossy().into_owned()).or_default().push(address);
            }
        }
        Ok(ipam)
    }

    /// The pod's addresses, one of each range in the order of the ranges. A pod that has some keeps them.
    pub fn allocate(&mut self, pod: &str) -> Result<Vec<IpAddr>, IpamError> {
        check_pod_id(pod)?;
        let mut result = Vec::with_capacity(self.ranges.len());
        for index in 0..self.ranges.len() {
            let range = &self.ranges[index];
            let held = self.pods.get(pod).and_then(|held| held.iter().find(|ip| range.net.contains(*ip)));
            match held {
                Some(address) => result.push(*address),
                None => result.push(self.allocate_in(index, pod)?),
            }
        }
        Ok(result)
    }

    fn allocate_in(&mut self, index: usize, pod: &str) -> Result<IpAddr, IpamError> {
        let range = &self.ranges[index];
        let behind = range.cursor.max(range.first - 1) + 1..=range.last;
        let before = range.first..=range.cursor.min(range.last);
        for number in behind.chain(before) {
            let address = to_address(&range.net, number);
            if self.used.contains(&address) {
                continue;
            }
            let path = self.dir.join(address.to_string());
            match symlink(pod, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(state_error(&path, source)),
            }
            self.used.insert(address);
            self.pods.entry(pod.into()).or_default().push(address);
            self.ranges[index].advance(&self.dir, number)?;
            return Ok(address);
        }
        Err(IpamError::Exhausted(range.net))
    }

    /// Gives back whatever the pod holds; a pod that holds nothing is no error.
    pub fn release(&mut self, pod: &str) -> Result<(), IpamError> {
        for address in self.pods.get(pod).cloned().unwrap_or_default() {
            let path = self.dir.join(address.to_string());
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(state_error(&path, source)),
                _ => self.used.remove(&address),
            };
        }
        self.pods.remove(pod);
        Ok(())
    }

    /// The pods that hold addresses.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.pods.keys().map(String::as_str)
    }

    /// A pod's addresses in the order of the ranges, or none.
    pub fn addresses(&self, pod: &str) -> Option<Vec<IpAddr>> {
        let mut held = self.pods.get(pod)?.clone();
        held.sort_by_key(|ip| self.ranges.iter().position(|range| range.net.contains(ip)).unwrap_or(usize::MAX));
        Some(held)
    }
}

impl Range {
    fn open(dir: &Path, net: IpNet) -> Result<Range, IpamError> {
        let base = to_number(net.network());
        // The network address, the gateway's (the first), and the IPv4 broadcast address are never given out.
        let broadcast = if matches!(net, IpNet::V4(_)) { 1 } else { 0 };
        let (first, last) = (base.saturating_add(2), to_number(net.broadcast()) - broadcast);
        if first > last {
            return Err(IpamError::Range(net));
        }
        let stored = fs::read_link(cursor_path(dir, &net)).ok();
        let stored = stored.and_then(|target| target.to_str()?.parse::<IpAddr>().ok());
        let cursor = stored.filter(|ip| net.contains(ip)).map_or(base + 1, to_number);
        Ok(Range { net, first, last, cursor })
    }

    /// Remembers the newest allocation, across restarts too.
    fn advance(&mut self, dir: &Path, number: u128) -> Result<(), IpamError> {
        self.cursor = number;
        let path = cursor_path(dir, &self.net);
        let new = dir.join(".cursor");
        let store = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            symlink(to_address(&self.net, number).to_string(), &new)?;
            fs::rename(&new, &path)
        };
        store().map_err(|source| state_error(&path, source))
    }
}

/// The address of the gateway: the first of the range.
pub fn gateway(net: &IpNet) -> IpAddr {
    to_address(net, to_number(net.network()) + 1)
}

fn check_pod_id(pod: &str) -> Result<(), IpamError> {
    let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=200).contains(&pod.len()) && pod.bytes().all(valid) {
        return Ok(());
    }
    Err(IpamError::PodId(pod.chars().take(200).collect()))
}

fn cursor_path(dir: &Path, net: &IpNet) -> PathBuf {
    dir.join(format!("{CURSOR}{}-{}", net.network(), net.prefix_len()))
}

fn state_error(path: &Path, source: io::Error) -> IpamError {
    IpamError::State { path: path.into(), source }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn to_address(net: &IpNet, number: u128) -> IpAddr {
    match net {
        IpNet::V4(_) => IpAddr::V4((number as u32).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, cidr: &str) -> Ipam {
        Ipam::open(dir, &[cidr.parse().unwrap()]).unwrap()
    }

    fn one(ipam: &mut Ipam, pod: &str) -> String {
        ipam.allocate(pod).unwrap()[0].to_string()
    }

    #[test]
    fn allocations_survive_a_restart_and_released_addresses_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(dir.path(), "10.1.0.0/29");
        assert_eq!(one(&mut ipam, "a"), "10.1.0.2");
        assert_eq!(one(&mut ipam, "a"), "10.1.0.2");
        assert_eq!(one(&mut ipam, "b"), "10.1.0.3");
        ipam.release("b").unwrap();
        assert_eq!(one(&mut ipam, "c"), "10.1.0.4");
        ipam.release("c").unwrap();

        let mut ipam = open(dir.path(), "10.1.0.0/29");
        assert_eq!(one(&mut ipam, "a"), "10.1.0.2");
        let rest: Vec<String> = ["d", "e", "f", "g"].iter().map(|pod| one(&mut ipam, pod)).collect();
        assert_eq!(rest, ["10.1.0.5", "10.1.0.6", "10.1.0.3", "10.1.0.4"]);
        assert!(matches!(ipam.allocate("h"), Err(IpamError::Exhausted(_))));
        assert_eq!(ipam.pods().count(), 5);
    }

    #[test]
    fn two_families_give_two_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let cidrs = ["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        let mut ipam = Ipam::open(dir.path(), &cidrs).unwrap();
        let addresses: Vec<String> = ipam.allocate("a").unwrap().iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["10.1.0.2", "fd00:1::2"]);
        assert_eq!(gateway(&cidrs[1]).to_string(), "fd00:1::1");
    }

    #[test]
    fn an_address_on_disk_is_never_given_out_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut stale = open(dir.path(), "10.1.0.0/24");
        one(&mut open(dir.path(), "10.1.0.0/24"), "a");
        assert_eq!(one(&mut stale, "b"), "10.1.0.3");
    }

    #[test]
    fn refuses_ids_that_are_no_ids_and_ranges_without_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(dir.path(), "10.1.0.0/24");
        for pod in ["", "../a", "a b", &"x".repeat(201)] {
            assert!(matches!(ipam.allocate(pod), Err(IpamError::PodId(_))), "{pod}");
        }
        let small = ["10.0.0.0/31".parse().unwrap()];
        assert!(matches!(Ipam::open(dir.path(), &small), Err(IpamError::Range(_))));
    }
}
