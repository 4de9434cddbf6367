//! What `canopus up` looks at before it changes anything: all that is wrong is said at once, each with what to do.

use super::node;
use crate::cli::UpArgs;
use anyhow::{Result, bail};
use canopus_runtime::cgroups::Cgroups;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock before this (2026-01-01) has not been set.
const PLAUSIBLE: u64 = 1_767_225_600;

/// Fails with everything that would keep a cluster from running on this host at `address`.
pub fn check(args: &UpArgs, address: IpAddr) -> Result<()> {
    let data = &args.data.data_dir;
    let mut problems = Vec::new();
    problems.extend(clock(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()));
    problems.extend(kernel(data));
    problems.extend(programs(std::env::var_os("PATH").unwrap_or_default().as_os_str()));
    problems.extend(addresses(args, address));
    problems.extend(ports(args, address));
    problems.extend(other_cluster(data));
    if let Ok(disk) = statvfs(data) {
        let part = |free: u64, all: u64| free as f64 / all.max(1) as f64;
        let free = part(disk.blocks_available(), disk.blocks());
        let size = i64::try_from(disk.blocks().saturating_mul(disk.fragment_size())).unwrap_or(i64::MAX);
        if args.eviction_hard.disk_pressure(free, part(disk.files_available(), disk.files()), size) {
            tracing::warn!(
                "only {:.0} % of the disk with {} are free: the node is under DiskPressure and takes no pods; make room, \
                 name a directory on another disk (--data-dir), or keep less free (--eviction-hard)",
                free * 100.0,
                data.display()
            );
        }
    }
    match problems.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        many => bail!("{} things are in the way:\n  - {}", many.len(), many.join("\n  - ")),
    }
}

fn clock(now: u64) -> Option<String> {
    (now < PLAUSIBLE).then(|| {
        "this host's clock is years behind, and certificates made now would be invalid: set it (date -s, or run an NTP \
         client)"
            .into()
    })
}

/// What the kernel and its mounts must have.
fn kernel(data: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = Cgroups::probe() {
        problems.push(format!(
            "control groups are not to be had ({error}): mount them (mount -t cgroup2 none /sys/fs/cgroup)"
        ));
    }
    // Refused for its missing options by a kernel that has it; asking makes the kernel load the module.
    let none: Option<&str> = None;
    let asked = nix::mount::mount(none, data, Some("overlay"), nix::mount::MsFlags::empty(), none);
    if asked == Err(Errno::ENODEV) {
        problems.push("this kernel has no overlayfs, which containers' files need: load it (modprobe overlay)".into());
    }
    if statfs(data).is_ok_and(|found| found.filesystem_type() == OVERLAYFS_SUPER_MAGIC) {
        problems.push(format!(
            "{} is on an overlay, where containers' files cannot be: name a directory on a disk (--data-dir)",
            data.display()
        ));
    }
    if !Path::new("/dev/null").metadata().is_ok_and(|m| m.file_type().is_char_device()) {
        problems.push("/dev/null is no device: mount a proper /dev".into());
    }
    problems
}

fn programs(path: &std::ffi::OsStr) -> Option<String> {
    let found = std::env::split_paths(path).any(|dir| dir.join("nft").is_file());
    (!found).then(|| "the program nft, which Services need, is not in PATH: install nftables".into())
}

/// The cluster's ranges must be other networks than the one the host is in.
fn addresses(args: &UpArgs, address: IpAddr) -> Vec<String> {
    let ranges =
        [("--cluster-cidr", &args.cluster_cidr), ("--service-cluster-ip-range", &args.service_cluster_ip_range)];
    let mut problems = Vec::new();
    let mut parsed: Vec<IpNet> = Vec::new();
    for (flag, text) in ranges {
        match text.parse::<IpNet>() {
            Err(_) => problems.push(format!("{flag} {text:?} is no address range like 10.0.0.0/16")),
            Ok(range) if range.contains(&address) => problems.push(format!(
                "this host's address {address} lies in the range {range}: give the cluster another with {flag}"
            )),
            Ok(range) => parsed.push(range),
        }
    }
    if let [pods, services] = parsed[..]
        && (pods.contains(&services.network()) || services.contains(&pods.network()))
    {
        problems.push(format!("the ranges of pods ({pods}) and Services ({services}) overlap"));
    }
    problems
}

fn ports(args: &UpArgs, address: IpAddr) -> Vec<String> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let tcp = [
        ("--secure-port", args.bind_address, args.secure_port),
        ("--agent-port", any, args.agent_port),
        ("--dns-port", address, args.dns_port),
    ];
    let mut problems = Vec::new();
    for (flag, ip, port) in tcp {
        problems.extend(TcpListener::bind((ip, port)).err().map(|e| taken(flag, (ip, port).into(), "TCP", &e)));
    }
    let dns = (address, args.dns_port);
    if problems.iter().any(|problem| problem.ends_with("--dns-port")) {
        return problems;
    }
    problems.extend(UdpSocket::bind(dns).err().map(|e| taken("--dns-port", dns.into(), "UDP", &e)));
    problems
}

fn taken(flag: &str, at: SocketAddr, protocol: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            let owner = (protocol == "TCP").then(|| listener(at.port())).flatten();
            let owner = owner.unwrap_or_else(|| "another program".into());
            format!("{protocol} port {} is in use by {owner}: stop it, or choose another port with {flag}", at.port())
        }
        ErrorKind::AddrNotAvailable => format!("this host has no address {}", at.ip()),
        _ => format!("failed to listen on {at} ({protocol}): {error}"),
    }
}

/// Who listens on a TCP port: `nginx (pid 12)`.
fn listener(port: u16) -> Option<String> {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else { continue };
        // One that has ended meanwhile, or is not ours to look into.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if targets.into_iter().any(|target| sockets.iter().any(|socket| target == Path::new(socket))) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// The sockets of /proc/net/tcp that listen on `port`, as links in /proc/PID/fd show them.
fn listening(table: &str, port: u16) -> Vec<String> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = fields.get(1)?.rsplit_once(':')?;
        let listens = u16::from_str_radix(hex, 16) == Ok(port) && *fields.get(3)? == "0A";
        listens.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// A bridge that is there before this cluster ever ran belongs to somebody else.
fn other_cluster(data: &Path) -> Option<String> {
    let bridge = nix::net::if_::if_nametoindex(node::BRIDGE).is_ok();
    let ours = data.join("node").join("network").exists();
    (bridge && !ours).then(|| {
        format!(
            "there is a network interface {name} already, of another cluster on this host: stop that one first \
             (canopus reset --data-dir ITS-DIR), or remove the interface if nothing uses it (ip link delete {name})",
            name = node::BRIDGE
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::up_args;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let who = listener(port).unwrap();
        assert!(who.ends_with(&format!("(pid {})", std::process::id())), "{who}");
        let error = TcpListener::bind(("127.0.0.1", port)).unwrap_err();
        let said = taken("--secure-port", ([127, 0, 0, 1], port).into(), "TCP", &error);
        assert_eq!(
            said,
            format!("TCP port {port} is in use by {who}: stop it, or choose another port with --secure-port")
        );
        drop(held);
        assert_eq!(listener(port), None);
    }

    #[test]
    fn ranges_must_not_meet() {
        let said = |line: &str| addresses(&up_args(line), [10, 96, 3, 4].into()).join("\n");
        assert_eq!(
            said(""),
            "this host's address 10.96.3.4 lies in the range 10.96.0.0/16: give the cluster another with \
             --service-cluster-ip-range"
        );
        assert_eq!(said("--service-cluster-ip-range 10.97.0.0/16"), "");
        assert_eq!(
            said("--service-cluster-ip-range 10.244.1.0/24"),
            "the ranges of pods (10.244.0.0/16) and Services (10.244.1.0/24) overlap"
        );
        assert_eq!(
            said("--cluster-cidr ten --service-cluster-ip-range 10.97.0.0/16"),
            "--cluster-cidr \"ten\" is no address range like 10.0.0.0/16"
        );
    }

    #[test]
    fn a_clock_that_was_never_set_is_noticed() {
        assert!(clock(0).is_some() && clock(PLAUSIBLE).is_none());
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(programs(dir.path().as_os_str()).unwrap().contains("install nftables"));
        fs::write(dir.path().join("nft"), "").unwrap();
        assert_eq!(programs(dir.path().as_os_str()), None);
    }
}
