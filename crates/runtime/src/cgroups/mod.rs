//! Control groups on whatever layout the host has: v2, v1, or both at once.
//!
//! [`Cgroups::probe`] reads the mount table once; every other method takes a path relative to the
//! root of each hierarchy (`canopus/kubepods/burstable/pod<uid>/<container>`) and acts on all of
//! them. A limit whose controller the host lacks is skipped: see [`Cgroups::missing`].

mod devices;
mod stats;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use devices::DeviceRule;
pub use stats::{CpuStats, MemoryStats, Stats};

/// Controllers a node wants; the others are left alone.
const WANTED: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "hugetlb", "freezer"];

/// Limits of one group. `None` leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Relative CPU weight in v1 terms: 2..=262144, 1024 a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period; -1 lifts the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// Microseconds, 100,000 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Bytes; -1 lifts the limit. Swap is never granted on top of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<i64>,
    /// v2 only: `memory.min`, guaranteed bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_min: Option<u64>,
    /// v2 only: kill the whole group when one of its processes is chosen by the OOM killer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_oom_group: Option<bool>,
    /// -1 lifts the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Bytes by page size as the kernel spells it (`2MB`, `1GB`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hugetlb: BTreeMap<String, u64>,
    /// Device access; `None` leaves it as inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceRule>>,
}

impl Resources {
    /// Takes over what `newer` sets.
    pub fn merge(&mut self, newer: &Self) {
        fn take<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        take(&mut self.cpu_shares, &newer.cpu_shares);
        take(&mut self.cpu_quota, &newer.cpu_quota);
        take(&mut self.cpu_period, &newer.cpu_period);
        take(&mut self.cpuset_cpus, &newer.cpuset_cpus);
        take(&mut self.cpuset_mems, &newer.cpuset_mems);
        take(&mut self.memory_limit, &newer.memory_limit);
        take(&mut self.memory_min, &newer.memory_min);
        take(&mut self.memory_oom_group, &newer.memory_oom_group);
        take(&mut self.pids_limit, &newer.pids_limit);
        take(&mut self.devices, &newer.devices);
        self.hugetlb.extend(newer.hugetlb.clone());
    }
}

/// Which hierarchies the host mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Unified,
    Hybrid,
    Legacy,
}

/// The host's cgroup hierarchies.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    /// Mount point of cgroup2, if any.
    v2: Option<PathBuf>,
    /// Controllers available on it.
    v2_controllers: BTreeSet<String>,
    /// v1: controller → mount point.
    v1: BTreeMap<String, PathBuf>,
    /// v1 mounts of controllers that are left alone. libcontainer makes groups there all the same, to be removed.
    foreign: BTreeSet<PathBuf>,
}

impl Cgroups {
    /// Reads `/proc/self/mountinfo`. A host without any cgroup mount is an error.
    pub fn probe() -> io::Result<Self> {
        let found = Self::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        if found.v2.is_none() && found.v1.is_empty() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no cgroup hierarchy is mounted"));
        }
        let mut found = found;
        if let Some(mount) = &found.v2 {
            let names = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            found.v2_controllers = names.split_whitespace().map(str::to_owned).collect();
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            match kind {
                "cgroup2" if found.v2.is_none() => found.v2 = Some(PathBuf::from(mount)),
                "cgroup" => {
                    let wanted: Vec<&str> = options.split(',').filter(|o| WANTED.contains(o)).collect();
                    if wanted.is_empty() {
                        found.foreign.insert(PathBuf::from(mount));
                    }
                    for controller in wanted {
                        found.v1.entry(controller.to_owned()).or_insert_with(|| PathBuf::from(mount));
                    }
                }
                _ => {}
            }
        }
        found
    }

    pub fn layout(&self) -> Layout {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => Layout::Unified,
            (Some(_), false) => Layout::Hybrid,
            (None, _) => Layout::Legacy,
        }
    }

    /// Controllers that limit nothing on this host, of those a node sets.
    pub fn missing(&self) -> Vec<&'static str> {
        let has = |c: &str| self.v1.contains_key(c) || self.v2_controllers.contains(c);
        ["cpu", "cpuset", "memory", "pids", "hugetlb"].into_iter().filter(|c| !has(c)).collect()
    }

    /// Every directory that is `path` in some hierarchy, without repeats.
    fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let mounts: BTreeSet<&PathBuf> = self.v1.values().chain(&self.v2).collect();
        mounts.into_iter().map(|m| m.join(path.trim_start_matches('/'))).collect()
    }

    /// The same, those of foreign hierarchies included.
    fn all_dirs(&self, path: &str) -> Vec<PathBuf> {
        let foreign = self.foreign.iter().map(|m| m.join(path.trim_start_matches('/')));
        self.dirs(path).into_iter().chain(foreign).collect()
    }

    /// The v1 directory of a controller.
    fn v1_dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        self.v1.get(controller).map(|m| m.join(path.trim_start_matches('/')))
    }

    /// The v2 directory, whatever controllers it has.
    fn v2_dir(&self, path: &str) -> Option<PathBuf> {
        self.v2.as_ref().map(|m| m.join(path.trim_start_matches('/')))
    }

    /// Creates the group and its parents in every hierarchy, then sets its limits. Idempotent.
    pub fn create(&self, path: &str, resources: &Resources) -> io::Result<()> {
        check_path(path)?;
        for dir in self.dirs(path) {
            fs::create_dir_all(&dir).map_err(|e| context(e, &dir))?;
        }
        if let Some(mount) = self.v1.get("cpuset") {
            v1::fill_cpuset(mount, path)?;
        }
        if let Some(mount) = &self.v2 {
            v2::enable_controllers(mount, path, &self.v2_controllers);
        }
        self.update(path, resources)
    }

    /// Changes limits of a group that exists.
    pub fn update(&self, path: &str, resources: &Resources) -> io::Result<()> {
        v1::apply(self, path, resources)?;
        v2::apply(self, path, resources)?;
        if let Some(rules) = &resources.devices {
            match (self.v1_dir("devices", path), self.v2_dir(path)) {
                (Some(dir), _) => devices::apply_v1(&dir, rules)?,
                (None, Some(dir)) => devices::apply_v2(&dir, rules)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Moves a process into the group, in every hierarchy.
    pub fn join(&self, path: &str, pid: i32) -> io::Result<()> {
        for dir in self.dirs(path) {
            let file = dir.join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(|e| context(e, &file))?;
        }
        Ok(())
    }

    /// Moves a process into the v2 group of a hybrid host, which libcontainer leaves out there.
    pub fn join_unified_if_hybrid(&self, path: &str, pid: i32) -> io::Result<()> {
        match (self.layout(), self.v2_dir(path)) {
            (Layout::Hybrid, Some(dir)) => {
                let file = dir.join("cgroup.procs");
                fs::write(&file, pid.to_string()).map_err(|e| context(e, &file))
            }
            _ => Ok(()),
        }
    }

    pub fn exists(&self, path: &str) -> bool {
        self.all_dirs(path).iter().any(|d| d.exists())
    }

    /// Processes in the group and those below it.
    pub fn pids(&self, path: &str) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        for dir in self.dirs(path) {
            walk(&dir, &mut |d| {
                let procs = fs::read_to_string(d.join("cgroup.procs")).unwrap_or_default();
                pids.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
            });
        }
        pids.into_iter().collect()
    }

    /// Sends `SIGKILL` to everything in the group and below, once, without waiting.
    pub fn kill(&self, path: &str) {
        let by_kernel = self.v2_dir(path).is_some_and(|d| fs::write(d.join("cgroup.kill"), "1").is_ok());
        if by_kernel && self.layout() == Layout::Unified {
            return;
        }
        for pid in self.pids(path) {
            // SAFETY: kill takes plain integers.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Kills until the group is empty or `wait` has passed; true when empty. A dead process stays
    /// listed until its parent has waited for it, so a parent must not wait here for its own child.
    pub fn kill_and_wait(&self, path: &str, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut pause = Duration::from_micros(200);
        loop {
            self.kill(path);
            if self.pids(path).is_empty() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Removes the group and those below it. A group that is gone is no error.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        self.remove_with(path, 20)
    }

    /// The same without waiting for processes that are on their way out.
    pub fn try_remove(&self, path: &str) -> io::Result<()> {
        self.remove_with(path, 0)
    }

    fn remove_with(&self, path: &str, retries: u32) -> io::Result<()> {
        check_path(path)?;
        let mut failed = Ok(());
        for dir in self.all_dirs(path) {
            if let Err(e) = remove_tree(&dir, retries) {
                failed = Err(context(e, &dir));
            }
        }
        failed
    }

    /// How many processes of the group the OOM killer has killed.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let (file, key) = match (self.v1_dir("memory", path), self.v2_dir(path)) {
            (Some(dir), _) => (dir.join("memory.oom_control"), "oom_kill"),
            (None, Some(dir)) => (dir.join("memory.events"), "oom_kill"),
            (None, None) => return 0,
        };
        stats::flat_keyed(&file).get(key).copied().unwrap_or(0)
    }

    /// Usage of the group with everything below it.
    pub fn stats(&self, path: &str) -> io::Result<Stats> {
        stats::read(self, path)
    }
}

/// Refuses paths that would reach outside a hierarchy or name its root.
fn check_path(path: &str) -> io::Result<()> {
    let bad = path.trim_matches('/').is_empty()
        || Path::new(path.trim_start_matches('/')).components().any(|c| !matches!(c, std::path::Component::Normal(_)));
    match bad {
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a cgroup path: {path:?}"))),
        false => Ok(()),
    }
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(dir);
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        walk(&entry.path(), visit);
    }
}

fn remove_tree(dir: &Path, retries: u32) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_tree(&entry.path(), retries)?;
    }
    // The last process's exit may still be under way when it has been waited for.
    for attempt in 0.. {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < retries => {
                std::thread::sleep(Duration::from_micros(200 << attempt.min(6)));
            }
            done => return done,
        }
    }
    Ok(())
}

fn context(e: io::Error, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn write(file: &Path, value: impl ToString) -> io::Result<()> {
    fs::write(file, value.to_string()).map_err(|e| context(e, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let v1 = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  33 23 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        assert_eq!(Cgroups::parse(v2).layout(), Layout::Unified);
        let legacy = Cgroups::parse(v1);
        assert_eq!(legacy.layout(), Layout::Legacy);
        assert_eq!(legacy.v1.keys().collect::<Vec<_>>(), ["cpu", "cpuacct", "memory"]);
        assert_eq!(legacy.dirs("a/b").len(), 2, "co-mounted controllers are one directory");
        assert_eq!(legacy.all_dirs("a/b").len(), 3, "a foreign hierarchy is cleaned up, too");
        assert_eq!(Cgroups::parse(&format!("{v1}{v2}")).layout(), Layout::Hybrid);
    }

    #[test]
    fn paths_stay_inside() {
        for bad in ["", "/", "../x", "a/../../b", "/a/./../.."] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        check_path("/canopus/kubepods/pod1").unwrap();
    }

    #[test]
    fn limits_reach_the_kernel() {
        let cgroups = Cgroups::probe().unwrap();
        let path = format!("canopus-cgtest-{}/kubepods/pod1", std::process::id());
        let limits = Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            memory_limit: Some(64 << 20),
            pids_limit: Some(77),
            devices: Some(DeviceRule::defaults()),
            ..Resources::default()
        };
        cgroups.create(&path, &limits).unwrap();
        cgroups.create(&path, &limits).unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        cgroups.join(&path, child.id() as i32).unwrap();
        assert_eq!(cgroups.pids(&path), [child.id() as i32]);
        let stats = cgroups.stats(&path).unwrap();
        assert_eq!(stats.memory.limit, Some(64 << 20));
        assert_eq!((stats.pids, stats.pids_limit), (1, Some(77)));
        cgroups.update(&path, &Resources { memory_limit: Some(32 << 20), ..Resources::default() }).unwrap();
        assert_eq!(cgroups.stats(&path).unwrap().memory.limit, Some(32 << 20));
        cgroups.kill(&path);
        child.wait().unwrap();
        cgroups.remove(path.split('/').next().unwrap()).unwrap();
        assert!(!cgroups.exists(&path));
    }
}
