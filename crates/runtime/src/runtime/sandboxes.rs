//! Pods' shared parts: made, listed, stopped and removed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::Runtime;
use crate::cgroups::{Resources, Stats};
use crate::client::QUICK;
use crate::error::{Context, Error, Result};
use crate::proto::{Op, Reply};
use crate::spec::{DnsConfig, SandboxSpec};
use crate::state::{self, SandboxDir, SandboxRecord, ShimRecord};

/// How long processes may take to vanish after `SIGKILL`.
const KILL_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    Ready,
    /// Stopped, or its shim died: nothing of it runs properly any more.
    NotReady,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStatus {
    pub id: String,
    pub state: SandboxState,
    pub spec: SandboxSpec,
    /// Nanoseconds since 1970.
    pub created_at: u64,
    /// The network namespace as a file, unless it is the host's or the sandbox isn't ready.
    pub netns: Option<PathBuf>,
    /// The shim.
    pub pid: Option<i32>,
    /// The pod's group from the root of the hierarchies.
    pub cgroup: String,
}

impl Runtime {
    /// Makes a pod's group and namespaces. Its network has nothing but a loopback device yet.
    pub fn run_sandbox(&self, mut spec: SandboxSpec) -> Result<SandboxStatus> {
        if spec.id.is_empty() {
            spec.id = state::random_id()?;
        }
        state::check_id(&spec.id)?;
        let id = spec.id.clone();
        let dir = self.dir(&id);
        self.unfinished().insert(id.clone());
        let made = self.try_run(&dir, spec);
        self.unfinished().remove(&id);
        made
    }

    fn try_run(&self, dir: &SandboxDir, spec: SandboxSpec) -> Result<SandboxStatus> {
        let id = spec.id.clone();
        match DirBuilder::new().mode(0o700).create(&dir.0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists(format!("sandbox {id}"))),
            other => other.path("create", &dir.0)?,
        }
        let record =
            SandboxRecord { id: id.clone(), created_at: now(), cgroup: self.cgroup_path(&spec.cgroup_parent), spec };
        match self.make_sandbox(dir, &record) {
            Ok(()) => self.describe(record),
            Err(e) => {
                // The first error is the one to tell; what cannot be removed now is listed as not ready.
                let _ = self.remove_sandbox(&id);
                Err(e)
            }
        }
    }

    fn make_sandbox(&self, dir: &SandboxDir, record: &SandboxRecord) -> Result<()> {
        let spec = &record.spec;
        state::write(&dir.file(state::SANDBOX_FILE), record)?;
        write(&dir.file("hostname"), &format!("{}\n", self.hostname(spec)?))?;
        write(&dir.file("resolv.conf"), &resolv_conf(spec.dns.as_ref()))?;
        fs::create_dir(dir.containers()).path("create", &dir.containers())?;
        self.cgroups.create(&record.cgroup, &spec.resources).what(|| "create the pod's cgroup".to_owned())?;
        self.spawn_shim(dir)?;
        self.shelter(&self.live_shim(&record.id)?)?;
        self.listen_to(&record.id)
    }

    /// Moves a shim out of the agent's own group, which a service manager may kill as a whole, to
    /// one outside its pod's limits.
    pub(super) fn shelter(&self, shim: &ShimRecord) -> Result<()> {
        let group = self.cgroup_path("shims");
        let enter = || {
            self.cgroups.create(&group, &Resources::default())?;
            self.cgroups.join(&group, shim.pid)?;
            shim.init.map_or(Ok(()), |init| self.cgroups.join(&group, init))
        };
        enter().what(|| "move the shim to its cgroup".to_owned())
    }

    fn hostname(&self, spec: &SandboxSpec) -> Result<String> {
        match spec.host_network || spec.hostname.is_empty() {
            false => Ok(spec.hostname.clone()),
            true => {
                let name =
                    nix::unistd::gethostname().map_err(io::Error::from).what(|| "get the host's name".to_owned())?;
                Ok(name.to_string_lossy().into_owned())
            }
        }
    }

    /// The program forks and exits once the sandbox is ready, so the shim is nobody's child.
    fn spawn_shim(&self, dir: &SandboxDir) -> Result<()> {
        let mut command = Command::new(&self.config.shim_path);
        command.arg(&dir.0).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = command.output().path("run", &self.config.shim_path)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(io::Error::other(said.trim().to_owned())).what(|| "set the sandbox up".to_owned())
            }
        }
    }

    pub fn sandbox_status(&self, id: &str) -> Result<SandboxStatus> {
        self.describe(self.sandbox(id)?)
    }

    /// All there are, ready or not. A directory without a readable record counts as not ready, so
    /// that it can be removed.
    pub fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>> {
        let mut list = Vec::new();
        for id in self.sandbox_ids()? {
            match self.sandbox(&id) {
                Ok(record) => list.push(self.describe(record)?),
                Err(Error::Io { source, .. }) => return Err(source).what(|| format!("read sandbox {id}")),
                Err(_) => list.push(SandboxStatus {
                    spec: SandboxSpec { id: id.clone(), ..SandboxSpec::default() },
                    id,
                    state: SandboxState::NotReady,
                    created_at: 0,
                    netns: None,
                    pid: None,
                    cgroup: String::new(),
                }),
            }
        }
        Ok(list)
    }

    fn describe(&self, record: SandboxRecord) -> Result<SandboxStatus> {
        let shim = self.shim(&record.id)?;
        let netns = shim.is_some() && !record.spec.host_network;
        Ok(SandboxStatus {
            state: if shim.is_some() { SandboxState::Ready } else { SandboxState::NotReady },
            netns: netns.then(|| self.dir(&record.id).file("netns")),
            pid: shim.map(|s| s.pid),
            id: record.id,
            spec: record.spec,
            created_at: record.created_at,
            cgroup: record.cgroup,
        })
    }

    /// Kills what still runs and gives the namespaces up. Containers' records stay. Idempotent.
    /// The caller has taken the network down before, or its devices vanish with the namespace.
    pub fn stop_sandbox(&self, id: &str) -> Result<()> {
        state::check_id(id)?;
        let dir = self.dir(id);
        if !dir.0.exists() {
            return Err(Error::NoSandbox(id.to_owned()));
        }
        if let Some(shim) = self.shim(id)? {
            self.stop_shim(id, &shim)?;
        }
        for container in state::subdirs(&dir.containers())? {
            self.clear_cgroup(id, &container)?;
        }
        unmount_below(&dir.0)
    }

    fn stop_shim(&self, id: &str, shim: &ShimRecord) -> Result<()> {
        let asked = self.client(id).and_then(|mut client| {
            let reply = client.ask(Op::Shutdown, Vec::new(), KILL_WAIT)?;
            Ok(matches!(reply, Reply::Done) && client.wait_gone(QUICK))
        });
        if !asked.unwrap_or(false) && shim.alive() {
            // SAFETY: kill takes plain integers; the process was just seen to be the shim.
            unsafe { libc::kill(shim.pid, libc::SIGKILL) };
        }
        let until = std::time::Instant::now() + KILL_WAIT;
        while shim.alive() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        match shim.alive() {
            false => Ok(()),
            true => Err(io::ErrorKind::TimedOut.into()).what(|| format!("stop the shim of sandbox {id}")),
        }
    }

    /// Kills a container's processes and removes their group.
    pub(super) fn clear_cgroup(&self, sandbox: &str, container: &str) -> Result<()> {
        let Ok(record) = self.sandbox(sandbox) else { return Ok(()) };
        let group = format!("{}/{container}", record.cgroup);
        if !self.cgroups.exists(&group) {
            return Ok(());
        }
        if !self.cgroups.kill_and_wait(&group, KILL_WAIT) {
            return Err(io::ErrorKind::TimedOut.into()).what(|| format!("kill the processes of container {container}"));
        }
        self.cgroups.remove(&group).what(|| format!("remove the cgroup of container {container}"))
    }

    /// Stops the sandbox and removes all trace of it and of its containers, but for their logs and
    /// root file systems. Works on what a crash or a reboot has left, too.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.stop_sandbox(id)?;
        let dir = self.dir(id);
        if let Ok(record) = self.sandbox(id) {
            let shared = self
                .sandbox_ids()?
                .iter()
                .filter(|other| *other != id)
                .any(|other| self.sandbox(other).is_ok_and(|o| o.cgroup == record.cgroup));
            if !shared {
                self.cgroups.remove(&record.cgroup).what(|| "remove the pod's cgroup".to_owned())?;
            }
        }
        self.index().retain(|_, sandbox| sandbox != id);
        fs::remove_dir_all(&dir.0).path("remove", &dir.0)
    }

    /// Removes every sandbox and the runtime's groups. The state directory itself stays.
    pub fn reset(&self) -> Result<()> {
        for id in self.sandbox_ids()? {
            self.remove_sandbox(&id)?;
        }
        self.cgroups.remove(&self.config.cgroup_root).what(|| "remove the node's cgroups".to_owned())
    }

    /// Replaces what the caller keeps with a sandbox.
    pub fn annotate_sandbox(&self, id: &str, annotations: BTreeMap<String, String>) -> Result<()> {
        let mut record = self.sandbox(id)?;
        record.spec.annotations = annotations;
        state::write(&self.dir(id).file(state::SANDBOX_FILE), &record)
    }

    /// What a pod uses, all its containers together.
    pub fn sandbox_stats(&self, id: &str) -> Result<Stats> {
        let record = self.sandbox(id)?;
        self.cgroups.stats(&record.cgroup).what(|| format!("read the figures of sandbox {id}"))
    }

    /// Changes a pod's limits.
    pub fn update_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        let mut record = self.sandbox(id)?;
        self.cgroups.update(&record.cgroup, resources).what(|| format!("change the limits of sandbox {id}"))?;
        record.spec.resources.merge(resources);
        state::write(&self.dir(id).file(state::SANDBOX_FILE), &record)
    }
}

pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).path("write", path)
}

fn resolv_conf(dns: Option<&DnsConfig>) -> String {
    let Some(dns) = dns else { return fs::read_to_string("/etc/resolv.conf").unwrap_or_default() };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Unmounts everything at or below `dir`, the latest first.
fn unmount_below(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").what(|| "read the mount table".to_owned())?;
    let dir = fs::canonicalize(dir).path("resolve", dir)?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape);
    let below: Vec<PathBuf> = points.filter(|p| p.starts_with(&dir)).collect();
    for point in below.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).map_err(io::Error::from).path("unmount", point)?;
    }
    Ok(())
}

/// The mount table writes blanks and backslashes in octal.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match (first, digits.and_then(|d| u8::from_str_radix(d, 8).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
    }

    #[test]
    fn resolv_conf_as_resolvers_expect_it() {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        let dns = DnsConfig {
            servers: list(&["10.96.0.10"]),
            searches: list(&["default.svc.cluster.local", "svc.cluster.local"]),
            options: list(&["ndots:5"]),
        };
        let expected = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(Some(&dns)), expected);
    }
}
