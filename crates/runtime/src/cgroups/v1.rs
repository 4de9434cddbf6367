//! cgroup v1 files.

use std::fs;
use std::io;
use std::path::Path;

use super::{Cgroups, Resources, write};

/// A new v1 cpuset has no CPUs and no memory nodes and takes no task until it has: copy them down.
pub(super) fn fill_cpuset(mount: &Path, path: &str) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut dir = mount.to_path_buf();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let inherited = fs::read_to_string(dir.join(file))?;
            dir.push(part);
            if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                write(&dir.join(file), inherited.trim())?;
            }
        }
    }
    Ok(())
}

pub(super) fn apply(cgroups: &Cgroups, path: &str, r: &Resources) -> io::Result<()> {
    if let Some(dir) = cgroups.v1_dir("cpu", path) {
        if let Some(shares) = r.cpu_shares {
            write(&dir.join("cpu.shares"), shares)?;
        }
        if let Some(period) = r.cpu_period {
            write(&dir.join("cpu.cfs_period_us"), period)?;
        }
        if let Some(quota) = r.cpu_quota {
            write(&dir.join("cpu.cfs_quota_us"), quota)?;
        }
    }
    if let Some(dir) = cgroups.v1_dir("cpuset", path) {
        if let Some(cpus) = &r.cpuset_cpus {
            write(&dir.join("cpuset.cpus"), cpus)?;
        }
        if let Some(mems) = &r.cpuset_mems {
            write(&dir.join("cpuset.mems"), mems)?;
        }
    }
    if let (Some(dir), Some(limit)) = (cgroups.v1_dir("memory", path), r.memory_limit) {
        set_memory(&dir, limit)?;
    }
    if let (Some(dir), Some(limit)) = (cgroups.v1_dir("pids", path), r.pids_limit) {
        let text = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        write(&dir.join("pids.max"), text)?;
    }
    if let Some(dir) = cgroups.v1_dir("hugetlb", path) {
        for (size, bytes) in &r.hugetlb {
            write(&dir.join(format!("hugetlb.{size}.limit_in_bytes")), bytes)?;
        }
    }
    Ok(())
}

/// memory ≤ memory + swap must hold after each of the two writes, so their order depends on the
/// direction of the change.
fn set_memory(dir: &Path, limit: i64) -> io::Result<()> {
    let (memory, both) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    if !both.exists() {
        return write(&memory, limit);
    }
    if write(&memory, limit).is_ok() {
        return write(&both, limit);
    }
    write(&both, limit)?;
    write(&memory, limit)
}
