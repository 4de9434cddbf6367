//! cgroup v2 files.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{Cgroups, Resources, write};

/// Passes controllers down from the root to the group's parent. One that cannot be is skipped:
/// a limit that needs it fails when it is set.
pub(super) fn enable_controllers(mount: &Path, path: &str, controllers: &BTreeSet<String>) {
    let mut dir = mount.to_path_buf();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        for controller in controllers {
            let _ = write(&dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(part);
    }
}

/// The kubelet's mapping of CPU shares [2, 262144] to weight [1, 10000].
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

pub(super) fn apply(cgroups: &Cgroups, path: &str, r: &Resources) -> io::Result<()> {
    let Some(dir) = cgroups.v2_dir(path) else { return Ok(()) };
    let has = |controller: &str| cgroups.v2_controllers.contains(controller);
    if has("cpu") {
        if let Some(shares) = r.cpu_shares {
            write(&dir.join("cpu.weight"), weight(shares))?;
        }
        if r.cpu_quota.is_some() || r.cpu_period.is_some() {
            let period = r.cpu_period.unwrap_or(100_000);
            write(&dir.join("cpu.max"), format!("{} {period}", max_or(r.cpu_quota.unwrap_or(-1))))?;
        }
    }
    if has("cpuset") {
        if let Some(cpus) = &r.cpuset_cpus {
            write(&dir.join("cpuset.cpus"), cpus)?;
        }
        if let Some(mems) = &r.cpuset_mems {
            write(&dir.join("cpuset.mems"), mems)?;
        }
    }
    if has("memory") {
        memory(&dir, r)?;
    }
    if let (true, Some(limit)) = (has("pids"), r.pids_limit) {
        write(&dir.join("pids.max"), max_or(limit))?;
    }
    if has("hugetlb") {
        for (size, bytes) in &r.hugetlb {
            write(&dir.join(format!("hugetlb.{size}.max")), bytes)?;
        }
    }
    Ok(())
}

fn memory(dir: &Path, r: &Resources) -> io::Result<()> {
    if let Some(limit) = r.memory_limit {
        write(&dir.join("memory.max"), max_or(limit))?;
        let swap = dir.join("memory.swap.max");
        if limit >= 0 && swap.exists() {
            write(&swap, 0)?;
        }
    }
    if let Some(min) = r.memory_min {
        write(&dir.join("memory.min"), min)?;
    }
    if let Some(group) = r.memory_oom_group {
        write(&dir.join("memory.oom.group"), u8::from(group))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;

    /// What is written where, on plain files.
    #[test]
    fn limits_in_the_words_of_v2() {
        let mount = std::env::temp_dir().join(format!("canopus-cgroup2-{}", std::process::id()));
        let group = mount.join("root/pod");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.swap.max"), "max").unwrap();
        let controllers: BTreeSet<String> = ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).into();
        let cgroups = Cgroups { v2: Some(mount.clone()), v2_controllers: controllers.clone(), ..Cgroups::default() };
        let limits = Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpuset_cpus: Some("0-1".to_owned()),
            memory_limit: Some(1 << 20),
            memory_oom_group: Some(true),
            pids_limit: Some(-1),
            hugetlb: BTreeMap::from([("2MB".to_owned(), 4)]),
            ..Resources::default()
        };
        apply(&cgroups, "root/pod", &limits).unwrap();
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
        let wanted = [
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "max"),
            // No such controller here: skipped.
            ("hugetlb.2MB.max", ""),
        ];
        for (file, text) in wanted {
            assert_eq!(read(file), text, "{file}");
        }
        apply(&cgroups, "root/pod", &Resources { cpu_quota: Some(-1), ..Resources::default() }).unwrap();
        assert_eq!(read("cpu.max"), "max 100000");
        // All groups above this one pass the controllers down; the group itself does not.
        enable_controllers(&mount, "root/pod", &["pids".to_owned()].into());
        assert_eq!(fs::read_to_string(mount.join("root/cgroup.subtree_control")).unwrap(), "+pids");
        assert!(!group.join("cgroup.subtree_control").exists());
        fs::write(group.join("memory.events"), "low 0\noom 2\noom_kill 3\n").unwrap();
        assert_eq!(cgroups.oom_kills("root/pod"), 3);
        fs::write(group.join("cgroup.procs"), "7\n8\n").unwrap();
        assert_eq!(cgroups.pids("root/pod"), [7, 8]);
        fs::remove_dir_all(&mount).unwrap();
    }

    #[test]
    fn shares_map_to_weight() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (1 << 40, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
