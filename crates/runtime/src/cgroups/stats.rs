//! Usage figures read from cgroup files.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Cgroups;

/// What a group uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: u64,
    pub pids_limit: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// CPU time used since the group exists, in nanoseconds.
    pub usage_ns: u64,
    /// Periods in which the quota ran out, and for how long.
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    pub usage: u64,
    /// Usage less the inactive file cache, as the kubelet reports it.
    pub working_set: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub limit: Option<u64>,
}

/// Parses `key value` lines.
pub(super) fn flat_keyed(file: &Path) -> HashMap<String, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

pub(super) fn read(cgroups: &Cgroups, path: &str) -> io::Result<Stats> {
    if !cgroups.exists(path) {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no such cgroup: {path}")));
    }
    let mut stats = Stats { cpu: cpu(cgroups, path), memory: memory(cgroups, path), ..Stats::default() };
    if let Some(dir) = cgroups.v1_dir("pids", path).or_else(|| cgroups.v2_dir(path)) {
        stats.pids = number(&dir.join("pids.current")).unwrap_or(0);
        stats.pids_limit = number(&dir.join("pids.max"));
    }
    Ok(stats)
}

fn cpu(cgroups: &Cgroups, path: &str) -> CpuStats {
    let throttling = |stat: &HashMap<String, u64>, key: &str| stat.get(key).copied().unwrap_or(0);
    if let Some(dir) = cgroups.v1_dir("cpuacct", path) {
        let stat = cgroups.v1_dir("cpu", path).map(|d| flat_keyed(&d.join("cpu.stat"))).unwrap_or_default();
        return CpuStats {
            usage_ns: number(&dir.join("cpuacct.usage")).unwrap_or(0),
            throttled_periods: throttling(&stat, "nr_throttled"),
            throttled_ns: throttling(&stat, "throttled_time"),
        };
    }
    let stat = cgroups.v2_dir(path).map(|d| flat_keyed(&d.join("cpu.stat"))).unwrap_or_default();
    CpuStats {
        usage_ns: throttling(&stat, "usage_usec") * 1000,
        throttled_periods: throttling(&stat, "nr_throttled"),
        throttled_ns: throttling(&stat, "throttled_usec") * 1000,
    }
}

fn memory(cgroups: &Cgroups, path: &str) -> MemoryStats {
    let v1 = cgroups.v1_dir("memory", path);
    let Some(dir) = v1.clone().or_else(|| cgroups.v2_dir(path)) else { return MemoryStats::default() };
    let stat = flat_keyed(&dir.join("memory.stat"));
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let (usage, limit, inactive, rss, faults, major) = match v1.is_some() {
        true => (
            number(&dir.join("memory.usage_in_bytes")),
            // "No limit" is the largest multiple of the page size.
            number(&dir.join("memory.limit_in_bytes")).filter(|l| *l < i64::MAX as u64 - (1 << 20)),
            get("total_inactive_file"),
            get("total_rss"),
            get("total_pgfault"),
            get("total_pgmajfault"),
        ),
        false => (
            number(&dir.join("memory.current")),
            number(&dir.join("memory.max")),
            get("inactive_file"),
            get("anon"),
            get("pgfault"),
            get("pgmajfault"),
        ),
    };
    let usage = usage.unwrap_or(0);
    MemoryStats {
        usage,
        working_set: usage.saturating_sub(inactive),
        rss,
        page_faults: faults,
        major_page_faults: major,
        limit,
    }
}
