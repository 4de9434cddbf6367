//! The embedded container runtime, as its caller sees it.

mod attach;
mod containers;
mod events;
mod exec;
mod sandboxes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cgroups::Cgroups;
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::host;
use crate::state::{self, ContainerRecord, SandboxDir, SandboxRecord, ShimRecord};

pub use attach::AttachSession;
pub use containers::Signalled;
pub use containers::{ContainerState, ContainerStatus};
pub use events::RuntimeEvent;
pub use exec::ExecSession;
pub use sandboxes::{SandboxState, SandboxStatus};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Config {
    /// Survives restarts of the agent; need not survive reboots.
    pub state_dir: PathBuf,
    /// The `canopus-shim` executable.
    pub shim_path: PathBuf,
    /// An executable that calls [`crate::dispatch_child`] first thing.
    pub child_path: PathBuf,
    /// Group under which all others are made: keeps several nodes of one machine apart.
    pub cgroup_root: String,
}

/// Sandboxes and containers of one node. All methods block; the type is `Sync`.
///
/// Nothing of it needs to be kept: any number of processes may open the same state directory one
/// after the other, and containers run on in between.
#[derive(Debug)]
pub struct Runtime {
    config: Config,
    cgroups: Cgroups,
    capabilities: BTreeSet<String>,
    thermal_throttle: Vec<String>,
    events: events::Events,
    /// Container → sandbox. A cache: the directories say it too.
    index: Mutex<HashMap<String, String>>,
    /// Sandboxes being made, not to be listed yet.
    unfinished: Mutex<HashSet<String>>,
}

impl Runtime {
    /// Finds the sandboxes there are and listens to those whose shim is alive.
    pub fn open(config: Config) -> Result<Self> {
        state::check_id(&config.cgroup_root)?;
        let sandboxes = config.state_dir.join("sandboxes");
        fs::create_dir_all(&sandboxes).path("create", &sandboxes)?;
        fs::set_permissions(&sandboxes, fs::Permissions::from_mode(0o700)).path("protect", &sandboxes)?;
        let cgroups = Cgroups::probe().what(|| "find the cgroup hierarchies".to_owned())?;
        let runtime = Self {
            config,
            cgroups,
            capabilities: host::capabilities(),
            thermal_throttle: host::thermal_throttle(),
            events: events::Events::new()?,
            index: Mutex::default(),
            unfinished: Mutex::default(),
        };
        for id in runtime.sandbox_ids()? {
            // One whose record is unreadable or that cannot be listened to is listed all the same.
            if let Ok(Some(shim)) = runtime.shim(&id) {
                // The last runtime may have died right before it did this.
                let _ = runtime.shelter(&shim);
                let _ = runtime.listen_to(&id);
            }
        }
        Ok(runtime)
    }

    /// What the host lacks and what follows from it, to be logged once.
    pub fn warnings(&self) -> Vec<String> {
        host::warnings(&self.cgroups, &self.capabilities)
    }

    /// The host's cgroups, for groups and figures above those of pods.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// The path from the hierarchies' roots of a group below the runtime's: `kubepods/burstable`.
    pub fn cgroup_path(&self, below: &str) -> String {
        format!("{}/{}", self.config.cgroup_root, below.trim_matches('/'))
    }

    /// What happens from now on, of all sandboxes. Call it before listing, so that nothing falls
    /// between. Events are hints: the truth is in the statuses.
    pub fn events(&self) -> Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    fn index(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir(&self, sandbox: &str) -> SandboxDir {
        SandboxDir(self.config.state_dir.join("sandboxes").join(sandbox))
    }

    fn sandbox_ids(&self) -> Result<Vec<String>> {
        let mut ids = state::subdirs(&self.config.state_dir.join("sandboxes"))?;
        let unfinished = self.unfinished();
        ids.retain(|id| !unfinished.contains(id));
        Ok(ids)
    }

    fn sandbox(&self, id: &str) -> Result<SandboxRecord> {
        state::check_id(id)?;
        let record = state::read_if_there(&self.dir(id).file(state::SANDBOX_FILE))?;
        record.ok_or_else(|| Error::NoSandbox(id.to_owned()))
    }

    /// The sandbox's shim, if it is alive.
    fn shim(&self, sandbox: &str) -> Result<Option<ShimRecord>> {
        let record: Option<ShimRecord> = state::read_if_there(&self.dir(sandbox).file(state::SHIM_FILE))?;
        Ok(record.filter(ShimRecord::alive))
    }

    fn live_shim(&self, sandbox: &str) -> Result<ShimRecord> {
        self.shim(sandbox)?.ok_or_else(|| Error::NotReady(sandbox.to_owned()))
    }

    fn client(&self, sandbox: &str) -> Result<Client> {
        Client::connect(&self.dir(sandbox).file(state::SOCKET))
    }

    fn listen_to(&self, sandbox: &str) -> Result<()> {
        let mut client = self.client(sandbox)?;
        client.ask(crate::proto::Op::Subscribe, Vec::new(), crate::client::QUICK)?;
        self.events.add(sandbox, client);
        Ok(())
    }

    /// The sandbox a container belongs to, and its record.
    fn container(&self, id: &str) -> Result<(String, ContainerRecord)> {
        state::check_id(id)?;
        let known = self.index().get(id).cloned();
        let candidates = match known {
            Some(sandbox) => vec![sandbox],
            None => self.sandbox_ids()?,
        };
        for sandbox in candidates {
            let file = self.dir(&sandbox).container(id).join(state::CONTAINER_FILE);
            if let Some(record) = state::read_if_there(&file)? {
                self.index().insert(id.to_owned(), sandbox.clone());
                return Ok((sandbox, record));
            }
        }
        self.index().remove(id);
        Err(Error::NoContainer(id.to_owned()))
    }
}
