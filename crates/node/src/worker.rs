//! One task per pod: looks, plans, does, tells, and sleeps until something happens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{DeleteOptions, Object, Patch, Target, Time, Value, WriteOptions, value};
use canopus_client::now;
use canopus_runtime::SandboxStatus;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::mounts::Volumes;
use crate::node::Node;
use crate::observe;
use crate::planner::{self, Action, Backoff, KillReason, Memory, Observed, Plan};
use crate::pod;
use crate::probes::Probers;
use crate::status::{self, Inputs, Waiting};

/// What is known of a pod: its newest object, or that the API no longer has it.
pub type PodWatch = watch::Receiver<Option<Arc<Object>>>;

/// A pod whose work failed in a way that isn't its own fault is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

pub struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) pod: PodWatch,
    pub(crate) notify: Arc<Notify>,
    pub(crate) sandboxes: Vec<String>,
    pub(crate) memory: Memory,
    pub(crate) waiting: BTreeMap<String, Waiting>,
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) volumes: Volumes,
    /// Delay of the next try by image pulls, and when it is due.
    pub(crate) pulls: BTreeMap<String, (Duration, Time)>,
    pub(crate) sandbox_failures: u32,
    probers: Probers,
    /// Stops that came to an end.
    stopped: Arc<Mutex<Vec<String>>>,
    /// The object after our last status write.
    written: Option<Arc<Object>>,
    cleaned: bool,
}

impl Worker {
    pub fn new(node: Arc<Node>, identity: [&str; 3], pod: PodWatch, found: Vec<SandboxStatus>) -> Self {
        let [uid, namespace, name] = identity.map(str::to_owned);
        let notify = Arc::new(Notify::new());
        let newest = found.iter().max_by_key(|s| s.created_at);
        let pod_ips = match newest {
            Some(sandbox) if sandbox.spec.host_network => vec![node.ip],
            Some(sandbox) => observe::addresses(sandbox),
            None => Vec::new(),
        };
        let sandboxes: Vec<String> = found.into_iter().map(|s| s.id).collect();
        for sandbox in &sandboxes {
            node.wakers.lock().insert(sandbox.clone(), notify.clone());
        }
        Self {
            probers: Probers::new(node.clone(), notify.clone()),
            node,
            uid,
            namespace,
            name,
            pod,
            notify,
            sandboxes,
            memory: Memory::default(),
            waiting: BTreeMap::new(),
            pod_ips,
            volumes: Volumes::default(),
            pulls: BTreeMap::new(),
            sandbox_failures: 0,
            stopped: Arc::default(),
            written: None,
            cleaned: false,
        }
    }

    /// Works until the API has forgotten the pod and nothing of it is left, or until `shutdown`, which stops nothing.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let wake = match self.step().await {
                Ok(Some(wake)) => wake,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(pod = %self.name, namespace = %self.namespace, %error, "failed to sync a pod");
                    Some(now().plus(RETRY))
                }
            };
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep(at.since(now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.notify.notified() => {}
                changed = self.pod.changed() => if changed.is_err() { return },
                () = sleep => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// The newest of what the watch said and what our own last write answered.
    fn current(&mut self) -> Option<Arc<Value>> {
        let watched = self.pod.borrow_and_update().clone()?;
        let newest = match &self.written {
            Some(written) if written.revision > watched.revision => written.clone(),
            _ => watched,
        };
        Some(newest.value())
    }

    /// One round. When to do the next even if nothing happens; the outer `None`: never again.
    async fn step(&mut self) -> Result<Option<Option<Time>>, Error> {
        loop {
            let pod = self.current();
            let observed = self.observe().await?;
            if let Some(pod) = &pod {
                self.probers.sync(pod, &observed, &self.pod_ips);
            }
            let probes = self.probers.results();
            let plan = planner::plan(pod.as_deref(), &observed, &probes, &self.memory, now());
            self.note_crash_loops(pod.as_deref(), &plan);
            if let Some(pod) = &pod {
                self.report(pod, &observed, plan.over).await?;
            }
            if plan.over && plan.actions.is_empty() {
                return self.end(pod.as_deref()).await;
            }
            let mut wake = plan.wake;
            if let Some(pod) = pod.as_deref().filter(|p| !planner::must_stop(Some(p), now())) {
                match self.refresh_volumes(pod).await {
                    Ok(due) => wake = earliest(wake, due),
                    Err(error) => {
                        // Running containers go on; new ones need their volumes.
                        let message = format!("MountVolume.SetUp failed: {error}");
                        self.node.recorder.warning(pod, "FailedMount", message);
                        return Ok(Some(earliest(wake, Some(now().plus(RETRY * 2)))));
                    }
                }
            }
            if plan.actions.is_empty() {
                return Ok(Some(wake));
            }
            let mut progressed = false;
            for action in plan.actions {
                progressed |= self.act(pod.as_deref(), &observed, action).await?;
            }
            if !progressed {
                if let Some(pod) = self.current() {
                    self.report(&pod, &observed, false).await?;
                }
                let retries = self.memory.retry.values().copied().chain(self.memory.sandbox_retry);
                let due = retries.filter(|t| *t > now()).min_by_key(|t| t.0);
                return Ok(Some(earliest(wake, due)));
            }
        }
    }

    async fn observe(&mut self) -> Result<Observed, Error> {
        let sandboxes = self.sandboxes.clone();
        let observed = self.node.blocking(move |node| observe::observe(&node.runtime, &sandboxes)).await??;
        let ended: Vec<String> = std::mem::take(&mut *self.stopped.lock());
        self.memory.stopping.retain(|id, _| !ended.contains(id) && observed.running().any(|i| i.id == *id));
        for instance in observed.running() {
            self.waiting.remove(&instance.name);
        }
        Ok(observed)
    }

    fn note_crash_loops(&mut self, pod: Option<&Value>, plan: &Plan) {
        for crash in &plan.crash_loops {
            let Some(pod) = pod else { return };
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(crash.delay),
                crash.name,
                pod::format(pod)
            );
            let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message };
            if self.waiting.insert(crash.name.clone(), waiting.clone()).as_ref() != Some(&waiting) {
                let name = self.name.as_str();
                let message = format!(
                    "Back-off restarting failed container {} in pod {name}_{}({})",
                    crash.name, self.namespace, self.uid
                );
                self.event(pod, "Warning", "BackOff", message, &crash.name);
            }
        }
    }

    /// Records an Event about one container.
    pub(crate) fn event(&self, pod: &Value, kind: &'static str, reason: &str, message: String, container: &str) {
        self.node.recorder.record(pod, kind, reason, message, &pod::field_path(pod, container));
    }

    /// Carries one action out; whether it changed anything.
    async fn act(&mut self, pod: Option<&Value>, observed: &Observed, action: Action) -> Result<bool, Error> {
        match (action, pod) {
            (Action::CreateSandbox { attempt }, Some(pod)) => self.create_sandbox(pod, attempt).await,
            (Action::Start { name, attempt }, Some(pod)) => {
                if attempt > 0 && observed.latest(&name).is_some() {
                    let next = Backoff::next(self.memory.backoff.get(&name).copied(), now());
                    self.memory.backoff.insert(name.clone(), next);
                }
                self.start(pod, observed, &name, attempt).await
            }
            (Action::Kill { id, name, reason, grace }, pod) => {
                self.kill(pod, id, &name, reason, grace);
                Ok(false)
            }
            (Action::StopSandbox { id }, _) => {
                let uid = self.uid.clone();
                self.node
                    .blocking(move |node| {
                        if let Err(error) = node.network.detach(&uid) {
                            tracing::warn!(%error, pod = %uid, "failed to detach a pod from the network");
                        }
                        node.runtime.stop_sandbox(&id)
                    })
                    .await??;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn kill(&mut self, pod: Option<&Value>, id: String, name: &str, reason: KillReason, grace: Duration) {
        if let Some(pod) = pod {
            let message = match reason {
                KillReason::Stop => format!("Stopping container {name}"),
                KillReason::Probe(kind) => format!("Container {name} failed {kind} probe, will be restarted"),
            };
            self.event(pod, "Normal", "Killing", message, name);
        }
        self.memory.stopping.insert(id.clone(), now().plus(grace));
        let (node, stopped, notify) = (self.node.clone(), self.stopped.clone(), self.notify.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = node.runtime.stop_container(&id, grace, None) {
                tracing::warn!(%error, container = %id, "failed to stop a container");
                std::thread::sleep(RETRY);
            }
            stopped.lock().push(id);
            notify.notify_one();
        });
    }

    /// Writes the status if it has changed.
    async fn report(&mut self, pod: &Value, observed: &Observed, over: bool) -> Result<(), Error> {
        let probes = self.probers.results();
        let new = status::pod_status(
            pod,
            &Inputs {
                observed,
                probes: &probes,
                waiting: &self.waiting,
                pod_ips: &self.pod_ips,
                host_ip: self.node.ip,
                now: now(),
                terminal: over,
            },
        );
        let Some(patch) = status::diff(&pod["status"], &new) else { return Ok(()) };
        let body = value!({"metadata": {"uid": &self.uid}, "status": patch});
        let options = WriteOptions { field_manager: "kubelet".into(), ..WriteOptions::default() };
        match self.node.api.patch(&self.target().subresource("status"), Patch::Merge(body), &options).await {
            Ok(object) => {
                self.written = Some(object);
                Ok(())
            }
            // Gone, or another pod of the same name: the watch will say so.
            Err(gone) if gone.is_not_found() || gone.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn target(&self) -> Target {
        Target::new(&Node::pods(), &self.namespace, &self.name)
    }

    /// Everything is over. A pod that is only complete stays until it is deleted; otherwise all traces go.
    async fn end(&mut self, pod: Option<&Value>) -> Result<Option<Option<Time>>, Error> {
        self.probers.clear();
        let deleting = pod.is_none_or(pod::is_deleting);
        if !deleting {
            let dir = self.node.pod_dir(&self.uid).join("volumes");
            self.volumes = Volumes::default();
            self.node.blocking(move |_| crate::volumes::teardown(&dir)).await??;
            return Ok(Some(None));
        }
        if !self.cleaned {
            self.clean().await?;
            self.cleaned = true;
        }
        if pod.is_none() {
            return Ok(None);
        }
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(self.uid.as_str().into()),
            ..DeleteOptions::default()
        };
        match self.node.api.delete(&self.target(), &options).await {
            // Until the watch says that it is gone; finalizers may keep it.
            Ok(_) => Ok(Some(None)),
            Err(gone) if gone.is_not_found() || gone.is_conflict() => Ok(Some(None)),
            Err(error) => Err(error.into()),
        }
    }

    async fn clean(&mut self) -> Result<(), Error> {
        self.volumes = Volumes::default();
        let sandboxes = std::mem::take(&mut self.sandboxes);
        let kept = sandboxes.clone();
        let (uid, namespace, name) = (self.uid.clone(), self.namespace.clone(), self.name.clone());
        let done = self.node.blocking(move |node| clean(node, &sandboxes, [&uid, &namespace, &name])).await?;
        if done.is_err() {
            self.sandboxes = kept.clone();
        } else {
            self.node.wakers.lock().retain(|id, _| !kept.contains(id));
        }
        done
    }
}

/// Removes all traces of a pod. Blocks; may be repeated.
pub(crate) fn clean(node: &Node, sandboxes: &[String], [uid, namespace, name]: [&str; 3]) -> Result<(), Error> {
    for sandbox in sandboxes {
        let containers = match node.runtime.list_containers(Some(sandbox)) {
            Ok(list) => list,
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e.into()),
        };
        node.runtime.stop_sandbox(sandbox)?;
        for container in containers {
            node.images.store().release(&container.id)?;
        }
        if !uid.is_empty() {
            node.network.detach(uid)?;
        }
        match node.runtime.remove_sandbox(sandbox) {
            Err(e) if !e.is_not_found() => return Err(e.into()),
            _ => {}
        }
    }
    if uid.is_empty() {
        return Ok(());
    }
    crate::volumes::teardown(&node.pod_dir(uid))?;
    match std::fs::remove_dir_all(node.pod_logs(namespace, name, uid)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    a.into_iter().chain(b).min_by_key(|t| t.0)
}

/// As Go prints a duration of whole seconds: `1m20s`.
pub(crate) fn go_duration(d: Duration) -> String {
    match (d.as_secs() / 60, d.as_secs() % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
