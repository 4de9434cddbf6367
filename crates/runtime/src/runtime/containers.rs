//! Containers' lives.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Runtime;
use super::sandboxes::now;
use crate::cgroups::{DeviceRule, Resources, Stats};
use crate::client::{QUICK, SLOW};
use crate::error::{Context as _, Error, Result};
use crate::oci;
use crate::proto::{Code, Exit, Live, Op, Phase, Reply, Start};
use crate::spec::{ContainerSpec, PidMode};
use crate::state::{self, ContainerRecord, SandboxRecord, ShimRecord};

/// How long a container may take to end after `SIGKILL`.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signalled {
    Sent,
    /// The container is still being started: only a kill of all of it works.
    NotStarted,
    /// There is nothing left to signal.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started.
    Created,
    /// A start is under way, perhaps one that a dead caller has asked for.
    Starting,
    Running,
    Exited,
    /// It was running when its shim was lost.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox: String,
    pub state: ContainerState,
    pub spec: ContainerSpec,
    /// Nanoseconds since 1970.
    pub created_at: u64,
    /// 0 if it never ran, or if that was forgotten with its shim.
    pub started_at: u64,
    /// In the host's process namespace; 0 unless running.
    pub pid: i32,
    /// Once exited.
    pub exit: Option<Exit>,
}

impl Runtime {
    /// Prepares a container in a ready sandbox and returns its id. Its root file system is mounted
    /// by the caller. Nothing runs yet.
    pub fn create_container(&self, sandbox: &str, mut spec: ContainerSpec) -> Result<String> {
        let record = self.sandbox(sandbox)?;
        let shim = self.live_shim(sandbox)?;
        if spec.id.is_empty() {
            spec.id = state::random_id()?;
        }
        state::check_id(&spec.id)?;
        let id = spec.id.clone();
        let config = oci::config(&spec, &self.oci_context(&record, &shim, &id))?;
        let dir = self.dir(sandbox).container(&id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists(format!("container {id}"))),
            other => other.path("create", &dir)?,
        }
        if let Some(parent) = spec.log.as_ref().and_then(|l| l.path.parent()) {
            fs::create_dir_all(parent).path("create", parent)?;
        }
        state::write(&dir.join("config.json"), &config)?;
        // Last: with it the container exists.
        state::write(&dir.join(state::CONTAINER_FILE), &ContainerRecord { id: id.clone(), spec, created_at: now() })?;
        self.index().insert(id.clone(), sandbox.to_owned());
        Ok(id)
    }

    pub(super) fn oci_context(&self, sandbox: &SandboxRecord, shim: &ShimRecord, container: &str) -> oci::Context {
        let dir = self.dir(&sandbox.id);
        let ns = |name: &str| PathBuf::from(format!("/proc/{}/ns/{name}", shim.pid));
        let spec = &sandbox.spec;
        oci::Context {
            net: (!spec.host_network).then(|| dir.file("netns")),
            uts: (!spec.host_network).then(|| ns("uts")),
            ipc: (!spec.host_ipc).then(|| ns("ipc")),
            pid: shim.init.map(|init| PathBuf::from(format!("/proc/{init}/ns/pid"))),
            host_pid: spec.pid == PidMode::Host,
            cgroup: format!("{}/{container}", sandbox.cgroup),
            shm: if spec.host_ipc { "/dev/shm".into() } else { dir.file("shm") },
            hostname_file: dir.file("hostname"),
            resolv_conf: dir.file("resolv.conf"),
            host_capabilities: self.capabilities.clone(),
            thermal_throttle: self.thermal_throttle.clone(),
        }
    }

    /// Runs the container's command and returns once it has been executed. If it cannot be, the
    /// container counts as exited with code 128 and [`Error::Shim`] says why: [`Code::Exec`] means
    /// that the command is to blame.
    pub fn start_container(&self, id: &str) -> Result<()> {
        let (sandbox, record) = self.container(id)?;
        let pod = self.sandbox(&sandbox)?;
        self.live_shim(&sandbox)?;
        let spec = record.spec;
        let cgroup = format!("{}/{id}", pod.cgroup);
        let limits = Resources { devices: Some(device_rules(&spec)), ..spec.resources.clone() };
        self.cgroups.create(&cgroup, &limits).what(|| format!("create the cgroup of container {id}"))?;
        let start = Start {
            id: id.to_owned(),
            bundle: self.dir(&sandbox).container(id),
            child: self.config.child_path.clone(),
            cgroup,
            tty: spec.tty,
            stdin: spec.stdin,
            stdin_once: spec.stdin_once,
            shared_pid: pod.spec.pid != PidMode::Container,
            log: spec.log,
        };
        self.client(&sandbox)?.ask(Op::Start(start), Vec::new(), SLOW).map(|_| ())
    }

    /// Sends a container `signal` (without one, its own stop signal), or with `all` to every process in it, and does
    /// not wait for what comes of it: [`RuntimeEvent::Exited`](super::RuntimeEvent) tells.
    ///
    /// # Errors
    /// If its shim cannot be reached.
    pub fn signal_container(&self, id: &str, signal: Option<i32>, all: bool) -> Result<Signalled> {
        let (sandbox, record) = self.container(id)?;
        if self.shim(&sandbox)?.is_none() {
            self.clear_cgroup(&sandbox, id)?;
            return Ok(Signalled::Over);
        }
        let signal = signal.or(record.spec.stop_signal).unwrap_or(libc::SIGTERM);
        match self.client(&sandbox)?.ask(Op::Kill { id: id.to_owned(), signal, all }, Vec::new(), QUICK) {
            Err(e) if e.is_not_found() => Ok(Signalled::Over),
            // Over already, or still starting, which only a kill ends.
            Err(Error::Shim { code: Code::State, .. }) => match self.container_status(id)?.state {
                ContainerState::Created | ContainerState::Starting if !all => Ok(Signalled::NotStarted),
                _ => Ok(Signalled::Over),
            },
            other => other.map(|_| Signalled::Sent),
        }
    }

    /// Sends the container's stop signal (or another), and `SIGKILL` to all of it if it hasn't
    /// ended within `grace`. Returns when it has ended, at once if it doesn't run.
    pub fn stop_container(&self, id: &str, grace: Duration, signal: Option<i32>) -> Result<()> {
        let (sandbox, _) = self.container(id)?;
        if self.shim(&sandbox)?.is_none() {
            return self.clear_cgroup(&sandbox, id);
        }
        let mut client = self.client(&sandbox)?;
        client.ask(Op::Subscribe, Vec::new(), QUICK)?;
        let steps = [(signal, false, grace), (Some(libc::SIGKILL), true, KILL_WAIT)];
        for (signal, all, wait) in steps.into_iter().filter(|(_, _, wait)| !wait.is_zero()) {
            // A second connection, so that no event is taken for an answer.
            match self.signal_container(id, signal, all)? {
                Signalled::Over => return Ok(()),
                Signalled::NotStarted => continue,
                Signalled::Sent if client.wait_exit(id, Instant::now() + wait)? => return Ok(()),
                Signalled::Sent => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into()).what(|| format!("kill container {id}"))
    }

    /// Sends a signal to the container's first process, or to all of them.
    pub fn kill_container(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let (sandbox, _) = self.container(id)?;
        self.live_shim(&sandbox)?;
        self.client(&sandbox)?.ask(Op::Kill { id: id.to_owned(), signal, all }, Vec::new(), QUICK).map(|_| ())
    }

    /// Forgets a container, killing it first if it runs. Log and root file system stay.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        let (sandbox, _) = self.container(id)?;
        let dir = self.dir(&sandbox);
        if self.shim(&sandbox)?.is_some() {
            self.stop_container(id, Duration::ZERO, None)?;
            match self.client(&sandbox)?.ask(Op::Delete { id: id.to_owned() }, Vec::new(), QUICK) {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        self.clear_cgroup(&sandbox, id)?;
        for gone in [dir.file(state::OCI_DIR).join(id), dir.container(id)] {
            match fs::remove_dir_all(&gone) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.path("remove", &gone)?,
            }
        }
        self.index().remove(id);
        Ok(())
    }

    pub fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let (sandbox, record) = self.container(id)?;
        let live = self.live_containers(&sandbox)?;
        self.describe_container(&sandbox, record, live.as_deref())
    }

    /// Containers of one sandbox, or of all.
    pub fn list_containers(&self, sandbox: Option<&str>) -> Result<Vec<ContainerStatus>> {
        let sandboxes = match sandbox {
            Some(id) => vec![self.listed(id)?],
            None => self.sandbox_ids()?,
        };
        let mut list = Vec::new();
        for sandbox in sandboxes {
            let dir = self.dir(&sandbox);
            let ids = state::subdirs(&dir.containers())?;
            let live = if ids.is_empty() { None } else { self.live_containers(&sandbox)? };
            for id in ids {
                // Without a record it was never wholly created, or is just being removed.
                if let Some(record) = state::read_if_there(&dir.container(&id).join(state::CONTAINER_FILE))? {
                    list.push(self.describe_container(&sandbox, record, live.as_deref())?);
                }
            }
        }
        Ok(list)
    }

    /// A sandbox that `list_sandboxes` knows: also one that was never wholly created and has no record.
    fn listed(&self, id: &str) -> Result<String> {
        state::check_id(id)?;
        if self.dir(id).0.exists() { Ok(id.to_owned()) } else { Err(Error::NoSandbox(id.to_owned())) }
    }

    /// What the shim says, `None` if it is gone.
    fn live_containers(&self, sandbox: &str) -> Result<Option<Vec<Live>>> {
        if self.shim(sandbox)?.is_none() {
            return Ok(None);
        }
        match self.client(sandbox).and_then(|mut c| c.ask(Op::Status, Vec::new(), QUICK)) {
            Ok(Reply::Status(status)) => Ok(Some(status.containers)),
            Ok(_) => Ok(None),
            // It may have died since.
            Err(_) if self.shim(sandbox)?.is_none() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn describe_container(
        &self,
        sandbox: &str,
        record: ContainerRecord,
        live: Option<&[Live]>,
    ) -> Result<ContainerStatus> {
        let known = live.and_then(|l| l.iter().find(|c| c.id == record.id));
        let saved = match known {
            Some(_) => None,
            None => state::read_if_there::<Exit>(&self.dir(sandbox).container(&record.id).join(state::EXIT_FILE))?,
        };
        let exit = known.and_then(|k| k.exit.clone()).or(saved);
        let state = match (known.map(|k| k.phase), &exit, live) {
            (Some(Phase::Running), _, _) => ContainerState::Running,
            (Some(Phase::Starting), _, _) => ContainerState::Starting,
            (_, Some(_), _) => ContainerState::Exited,
            (_, None, Some(_)) => ContainerState::Created,
            (_, None, None) => ContainerState::Unknown,
        };
        Ok(ContainerStatus {
            sandbox: sandbox.to_owned(),
            state,
            started_at: known.map(|k| k.started_at).or(exit.as_ref().map(|e| e.started_at)).unwrap_or(0),
            pid: known.map_or(0, |k| k.pid),
            exit,
            id: record.id,
            spec: record.spec,
            created_at: record.created_at,
        })
    }

    /// Moves the log file away and begins a new one.
    pub fn rotate_log(&self, id: &str) -> Result<()> {
        self.log(id, true)
    }

    /// Opens the log file's path anew, after the caller has moved the file away.
    pub fn reopen_log(&self, id: &str) -> Result<()> {
        self.log(id, false)
    }

    fn log(&self, id: &str, rotate: bool) -> Result<()> {
        let (sandbox, _) = self.container(id)?;
        self.live_shim(&sandbox)?;
        self.client(&sandbox)?.ask(Op::Log { id: id.to_owned(), rotate }, Vec::new(), QUICK).map(|_| ())
    }

    /// What a running container uses.
    pub fn container_stats(&self, id: &str) -> Result<Stats> {
        let (sandbox, _) = self.container(id)?;
        let group = format!("{}/{id}", self.sandbox(&sandbox)?.cgroup);
        self.cgroups.stats(&group).what(|| format!("read the figures of container {id}"))
    }

    /// Changes a container's limits, at once if it runs.
    pub fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        let (sandbox, mut record) = self.container(id)?;
        let group = format!("{}/{id}", self.sandbox(&sandbox)?.cgroup);
        if self.cgroups.exists(&group) {
            self.cgroups.update(&group, resources).what(|| format!("change the limits of container {id}"))?;
        }
        record.spec.resources.merge(resources);
        state::write(&self.dir(&sandbox).container(id).join(state::CONTAINER_FILE), &record)
    }
}

/// The usual devices and the container's own; everything if privileged.
fn device_rules(spec: &ContainerSpec) -> Vec<DeviceRule> {
    match (&spec.resources.devices, spec.privileged) {
        (_, true) => DeviceRule::all(),
        (Some(rules), _) => rules.clone(),
        (None, _) => DeviceRule::defaults().into_iter().chain(spec.devices.iter().map(|d| d.rule.clone())).collect(),
    }
}
