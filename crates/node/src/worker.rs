//! One task per pod: looks, plans, does, tells, and sleeps until something happens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use canopus_api::{DeleteOptions, Object, Patch, Target, Time, Value, View, WriteOptions, value};
use canopus_client::now;
use canopus_runtime::SandboxStatus;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::admission::{self, Refusal};
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
/// A container that doesn't end though it was killed is killed again.
const FINISH_RETRY: Duration = Duration::from_secs(5);
/// What a container gets to end in, however little was asked for: upstream's minimum.
const MIN_GRACE: Duration = Duration::from_secs(2);

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
    /// The newest object known: from the watch or our last status write. The last one, once it is gone.
    newest: Arc<Object>,
    cleaned: bool,
}

impl Worker {
    pub fn new(node: Arc<Node>, newest: Arc<Object>, pod: PodWatch, found: Vec<SandboxStatus>) -> Self {
        let facts = &newest.facts;
        let [uid, namespace, name] = [&facts.uid, &facts.namespace, &facts.name].map(|s| s.to_string());
        let notify = Arc::new(Notify::new());
        let last = found.iter().max_by_key(|s| s.created_at);
        let pod_ips = match last {
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
            newest,
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

    /// The newest of what the watch said and what our own last write answered, and whether it is gone.
    fn current(&mut self) -> (Arc<Value>, bool) {
        let watched = self.pod.borrow_and_update().clone();
        let gone = watched.is_none();
        if let Some(watched) = watched.filter(|w| w.revision > self.newest.revision) {
            self.newest = watched;
        }
        (self.newest.value(), gone)
    }

    /// One round. When to do the next even if nothing happens; the outer `None`: never again.
    async fn step(&mut self) -> Result<Option<Option<Time>>, Error> {
        loop {
            let (pod, gone) = self.current();
            let observed = self.observe().await?;
            if observed.sandbox.is_none()
                && !planner::must_stop(&pod, gone, now())
                && let Some(refusal) = self.refusal(&pod)
            {
                self.reject(&pod, refusal).await?;
                continue;
            }
            self.probers.sync(&pod, &observed, &self.pod_ips);
            let probes = self.probers.results();
            let plan = planner::plan(&pod, gone, &observed, &probes, &self.memory, now());
            self.note_crash_loops(&pod, &plan);
            if !gone {
                self.report(&pod, &observed, plan.over).await?;
            }
            if plan.over && plan.actions.is_empty() {
                return self.end(&pod, gone).await;
            }
            let mut wake = plan.wake;
            if !planner::must_stop(&pod, gone, now()) {
                match self.volumes_ready(&pod).await {
                    Ok(due) => wake = earliest(wake, due),
                    Err(retry) => return Ok(Some(earliest(wake, Some(retry)))),
                }
            }
            if plan.actions.is_empty() {
                return Ok(Some(wake));
            }
            let mut progressed = false;
            for action in plan.actions {
                progressed |= self.act(&pod, &observed, action).await?;
            }
            if !progressed {
                let (pod, gone) = self.current();
                if !gone {
                    self.report(&pod, &observed, false).await?;
                }
                let memory = &self.memory;
                let retries =
                    memory.retry.values().chain(memory.stopping.values()).copied().chain(memory.sandbox_retry);
                let due = retries.filter(|t| *t > now()).min_by_key(|t| t.0);
                return Ok(Some(earliest(wake, due)));
            }
        }
    }

    /// Why the pod may not run here; asked before anything of it is made.
    fn refusal(&self, pod: &Value) -> Option<Refusal> {
        let others = self.node.pods.list("").into_iter().filter(|p| p.facts.uid != self.uid.as_str());
        let others: Vec<Arc<Value>> = others.map(|p| p.value()).collect();
        // Those that were let in have a start time.
        let admitted = |p: &&Value| !pod::is_terminal(p) && !p["status"]["startTime"].is_null();
        admission::refusal(pod, others.iter().map(|p| &**p).filter(admitted), self.node.allocatable())
    }

    async fn reject(&mut self, pod: &Value, (reason, message): Refusal) -> Result<(), Error> {
        self.node.recorder.warning(pod, &reason, &message);
        let status = value!({
            "phase": "Failed", "reason": reason, "message": format!("Pod was rejected: {message}"), "startTime": now(),
            "qosClass": pod::qos(pod).name(), "observedGeneration": pod["metadata"]["generation"].clone(),
        });
        self.write(status).await
    }

    async fn observe(&mut self) -> Result<Observed, Error> {
        let sandboxes = self.sandboxes.clone();
        let observed = self.node.blocking(move |node| observe::observe(&node.runtime, &sandboxes)).await??;
        self.memory.stopping.retain(|id, _| observed.running().any(|i| i.id == *id));
        for instance in observed.running() {
            self.waiting.remove(&instance.name);
        }
        Ok(observed)
    }

    fn note_crash_loops(&mut self, pod: &Value, plan: &Plan) {
        for crash in &plan.crash_loops {
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
    async fn act(&mut self, pod: &Value, observed: &Observed, action: Action) -> Result<bool, Error> {
        match action {
            Action::CreateSandbox { attempt } => self.create_sandbox(pod, attempt).await,
            Action::Start { name, attempt } => {
                if attempt > 0 && observed.latest(&name).is_some() {
                    let next = Backoff::next(self.memory.backoff.get(&name).copied(), now());
                    self.memory.backoff.insert(name.clone(), next);
                }
                self.start(pod, observed, &name, attempt).await
            }
            Action::Kill { id, name, reason, grace } => {
                self.kill(pod, id, &name, reason, grace).await?;
                Ok(false)
            }
            Action::Finish { id } => {
                self.finish(id).await?;
                Ok(false)
            }
            Action::StopSandbox { id } => {
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
        }
    }

    async fn kill(
        &mut self,
        pod: &Value,
        id: String,
        name: &str,
        reason: KillReason,
        grace: Duration,
    ) -> Result<(), Error> {
        let message = match reason {
            KillReason::Stop => format!("Stopping container {name}"),
            KillReason::Probe(kind, true) => format!("Container {name} failed {kind} probe, will be restarted"),
            KillReason::Probe(kind, false) => format!("Container {name} failed {kind} probe"),
            KillReason::Changed => format!("Container {name} definition changed, will be restarted"),
        };
        self.event(pod, "Normal", "Killing", message, name);
        self.memory.stopping.insert(id.clone(), now().plus(grace.max(MIN_GRACE)));
        // Its end, or that of its grace, wakes us.
        self.node.blocking(move |node| node.runtime.signal_container(&id, None, false)).await??;
        Ok(())
    }

    async fn finish(&mut self, id: String) -> Result<(), Error> {
        self.memory.stopping.insert(id.clone(), now().plus(FINISH_RETRY));
        self.node.blocking(move |node| node.runtime.signal_container(&id, Some(libc::SIGKILL), true)).await??;
        Ok(())
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
        match status::diff(&pod["status"], &new) {
            Some(patch) => self.write(patch).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, patch: Value) -> Result<(), Error> {
        let body = value!({"metadata": {"uid": &self.uid}, "status": patch});
        let options = WriteOptions { field_manager: "kubelet".into(), ..WriteOptions::default() };
        match self.node.api.patch(&self.target().subresource("status"), Patch::Merge(body), &options).await {
            Ok(object) => {
                if object.revision > self.newest.revision {
                    self.newest = object;
                }
                Ok(())
            }
            // Gone, or another pod of the same name: the watch will say so.
            Err(gone) if gone.is_not_found() || gone.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn target(&self) -> Target {
        Target::new(&Node::gvr(), &self.namespace, &self.name)
    }

    /// Everything is over. A pod that is only complete stays until it is deleted; otherwise all traces go.
    async fn end(&mut self, pod: &Value, gone: bool) -> Result<Option<Option<Time>>, Error> {
        self.probers.clear();
        if !gone && !pod::is_deleting(pod) {
            let dir = self.node.pod_dir(&self.uid);
            self.volumes = Volumes::default();
            let teardown = move |_: &Node| {
                crate::volumes::teardown(&dir.join("volume-subpaths"))?;
                crate::volumes::teardown(&dir.join("volumes"))
            };
            self.node.blocking(teardown).await??;
            return Ok(Some(None));
        }
        if !self.cleaned {
            self.clean().await?;
            self.cleaned = true;
        }
        if gone {
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
