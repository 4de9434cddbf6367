//! What processes use: CPU, memory, wake-ups.

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time of a process so far, its ended threads included; exact to 10 ms.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("failed to read the server's CPU time")?;
    // The name, in parentheses, may hold blanks.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// CPU time of this process, the load generator.
pub fn own_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// How often each thread of a process went to sleep so far: about how often it woke.
pub fn sleeps(pid: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let count = |dir: &Path| number(&dir.join("status"), "voluntary_ctxt_switches:");
    tasks.filter_map(|task| Some((task.file_name().into_string().ok()?, count(&task.path())?))).collect()
}

/// How often threads woke between two looks; those that ended meanwhile took their counts along.
pub fn woken(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    after.iter().map(|(thread, count)| count.saturating_sub(before.get(thread).copied().unwrap_or(0))).sum()
}

/// Megabytes of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub rss: f64,
    /// Resident, pages that are shared counted in parts.
    pub pss: f64,
}

impl std::ops::AddAssign for Memory {
    fn add_assign(&mut self, other: Memory) {
        self.rss += other.rss;
        self.pss += other.pss;
    }
}

pub fn memory(pid: u32) -> Memory {
    let file = format!("/proc/{pid}/smaps_rollup");
    let mb = |name| number(Path::new(&file), name).map_or(0.0, |kb| kb as f64 * 1024.0 / 1e6);
    Memory { rss: mb("Rss:"), pss: mb("Pss:") }
}

/// The most that was resident since [`reset_peak`], in megabytes.
pub fn peak(pid: u32) -> f64 {
    number(Path::new(&format!("/proc/{pid}/status")), "VmHWM:").map_or(0.0, |kb| kb as f64 * 1024.0 / 1e6)
}

pub fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("failed to reset the peak of the resident memory")
}

/// The processes that run a program below `dir`.
pub fn running_from(dir: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(dir))).collect()
}

fn number(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_come_and_go() {
        let look = |counts: &[(&str, u64)]| counts.iter().map(|(thread, n)| ((*thread).into(), *n)).collect();
        assert_eq!(woken(&look(&[("1", 5), ("2", 900)]), &look(&[("1", 8), ("3", 4)])), 7);
    }
}
