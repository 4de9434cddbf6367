//! What a node must not leave behind in the kernel: mounts, processes, control groups, network devices.

use crate::host::Host;
use std::fs;
use std::path::Path;

/// Everything that still belongs to the node whose state is in `data_dir` and whose groups are below `cgroup_root`.
/// `host` is where its network is.
pub fn all(data_dir: &Path, cgroup_root: &str, host: &Host) -> Vec<String> {
    let mut left = mounts(data_dir);
    left.extend(processes(data_dir));
    left.extend(groups(cgroup_root));
    left.extend(links(host));
    left
}

/// What is left of pods while the node itself lives on.
pub fn of_pods(data_dir: &Path, cgroup_root: &str, host: &Host) -> Vec<String> {
    let mut left = mounts(data_dir);
    left.extend(processes(data_dir).into_iter().filter(|p| p.contains("canopus-shim")));
    for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
        let pods = groups(&format!("{cgroup_root}/{class}"));
        left.extend(pods.into_iter().filter(|g| g.rsplit('/').next().is_some_and(|name| name.starts_with("pod"))));
    }
    left.extend(links(host).into_iter().filter(|l| l.contains("cnp")));
    for below in ["runtime/sandboxes", "node/pods", "logs"] {
        left.extend(entries(&data_dir.join(below)));
    }
    let addresses = entries(&data_dir.join("node/network")).into_iter();
    left.extend(addresses.filter(|a| a.rsplit('/').next().is_some_and(|n| n.parse::<std::net::IpAddr>().is_ok())));
    left
}

/// Mounts at or below a directory.
pub fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = |line: &&str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(dir));
    table.lines().filter(below).map(|line| format!("mount {line}")).collect()
}

/// Processes that were started with the directory among their arguments, or whose program is in it.
pub fn processes(dir: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let dir = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let exe = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if (command.contains(&dir) || exe.to_string_lossy().starts_with(&dir)) && *entry.file_name() != *own {
            found.push(format!("process {} {command}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// The group and those below it, in every hierarchy there is.
pub fn groups(root: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
    let mut found = Vec::new();
    for point in points {
        let mut open = vec![Path::new(point).join(root)];
        while let Some(dir) = open.pop().filter(|d| d.is_dir()) {
            found.push(dir.display().to_string());
            let below = fs::read_dir(&dir).into_iter().flatten().flatten();
            open.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
    }
    found
}

/// Network devices of pods and their bridge.
fn links(host: &Host) -> Vec<String> {
    let output = host.command("ip").args(["-o", "link"]).output().expect("ip runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pods = |line: &&str| line.split(": ").nth(1).is_some_and(|name| name.starts_with("cnp") || name == "cni0");
    text.lines().filter(pods).map(|line| format!("device {line}")).collect()
}

fn entries(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path().display().to_string()).collect()
}
