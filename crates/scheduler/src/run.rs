//! The scheduler at work: follows pods and nodes, runs a cycle for one pod after another, and writes what was decided.
//! Decisions are made one at a time; bindings and reports of failure are written many at a time.

use crate::cache::{Cache, Snapshot};
use crate::cycle::{self, FitError, Turn};
use crate::framework::ClusterEvent;
use crate::node::Node;
use crate::pod::Pod;
use crate::queue::{Failure, Queue, Queued};
use canopus_api::{Api, Gvr, Object, Patch, Status, Target, Time, Value, WriteOptions, value};
use canopus_client::{Change, Informer, Informers, Recorder};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many bindings and reports may be under way at once.
const WRITES: usize = 256;
/// An Event's message may be no longer.
const LONGEST_NOTE: usize = 1024;

#[derive(Clone, Debug)]
pub struct Config {
    /// The pods it is responsible for say this in `spec.schedulerName`.
    pub scheduler_name: String,
    /// Seeds the choice among nodes that are equally good.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { scheduler_name: "default-scheduler".into(), seed: 1 }
    }
}

/// Schedules pods until `shutdown`. `api` is the door of `system:kube-scheduler`.
pub async fn run(config: Config, api: Arc<dyn Api>, shutdown: CancellationToken) {
    let informers = Informers::new(api.clone(), shutdown.clone());
    let (nodes, pods) = (informers.get("", "v1", "nodes"), informers.get("", "v1", "pods"));
    tokio::select! {
        () = async { nodes.synced().await; pods.synced().await } => {}
        () = shutdown.cancelled() => return,
    }
    let recorder = Recorder::start(api.clone(), &config.scheduler_name, "", shutdown.clone());
    let scheduler = Arc::new(Scheduler {
        name: config.scheduler_name,
        api,
        recorder,
        pods: pods.clone(),
        state: Mutex::default(),
        wake: Notify::new(),
        writes: Arc::new(Semaphore::new(WRITES)),
    });
    let (of_nodes, of_pods) = (scheduler.clone(), scheduler.clone());
    nodes.on_change(move |change| of_nodes.node_changed(change));
    pods.on_change(move |change| of_pods.pod_changed(change));
    let tasks = TaskTracker::new();
    tokio::select! {
        () = scheduler.clone().work(config.seed, &tasks) => {}
        () = shutdown.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
}

struct Scheduler {
    name: String,
    api: Arc<dyn Api>,
    recorder: Recorder,
    pods: Arc<Informer>,
    state: Mutex<State>,
    /// There may be a pod to try.
    wake: Notify,
    writes: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    queue: Queue,
}

impl Scheduler {
    fn node_changed(&self, change: &Change) {
        let mut state = self.state.lock();
        let event = match change.new {
            None => {
                state.cache.remove_node(change.object().name());
                return;
            }
            Some(object) => {
                let new = Arc::new(Node::of(&object.value()));
                match state.cache.put_node(new.clone()) {
                    None => ClusterEvent::NodeAdded(new),
                    Some(old) if old == new => return,
                    Some(old) => ClusterEvent::NodeChanged { old, new },
                }
            }
        };
        state.queue.event(&event, Instant::now());
        self.wake.notify_one();
    }

    fn pod_changed(&self, change: &Change) {
        let object = change.object();
        let facts = &object.facts;
        let node = facts.field("spec.nodeName").unwrap_or_default();
        if change.new.is_none() || is_finished(object) {
            return self.pod_gone(&facts.uid);
        }
        let mut state = self.state.lock();
        if !node.is_empty() {
            state.queue.remove(&facts.uid);
            if state.cache.is_current(&facts.uid, node, facts.generation) {
                return;
            }
            let pod = Arc::new(Pod::of(object));
            if state.cache.put_pod(pod.clone()).is_some_and(|old| old.requests != pod.requests) {
                state.queue.event(&ClusterEvent::PodResized(pod), Instant::now());
                self.wake.notify_one();
            }
            return;
        }
        if facts.deleting || facts.field("spec.schedulerName") != Some(&self.name) {
            state.queue.remove(&facts.uid);
            return;
        }
        // Only its spec says where it fits.
        if change.old.is_some_and(|old| old.facts.generation == facts.generation && old.facts.uid == facts.uid) {
            return;
        }
        if state.cache.pod(&facts.uid).is_none() {
            state.queue.put(Arc::new(Pod::of(object)), Instant::now());
            self.wake.notify_one();
        }
    }

    fn pod_gone(&self, uid: &str) {
        let mut state = self.state.lock();
        state.queue.remove(uid);
        if let Some(pod) = state.cache.remove_pod(uid) {
            state.queue.event(&ClusterEvent::PodRemoved(pod), Instant::now());
            self.wake.notify_one();
        }
    }

    async fn work(self: Arc<Self>, seed: u64, tasks: &TaskTracker) {
        let (mut snapshot, mut turn) = (Snapshot::default(), Turn::new(seed));
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.queue.pop(Instant::now());
                if next.is_some() {
                    state.cache.update(&mut snapshot);
                }
                next.ok_or_else(|| state.queue.wake_at())
            };
            match next {
                Ok(queued) => {
                    // Waits here while too much is being written.
                    let Ok(permit) = self.writes.clone().acquire_owned().await else { return };
                    let decided = cycle::schedule(&queued.pod, &snapshot, &mut turn);
                    let writer = self.clone();
                    match decided {
                        Ok(node) => {
                            let pod = Arc::new(queued.pod.placed(&node));
                            let mut state = self.state.lock();
                            state.cache.assume(pod.clone());
                            state.queue.done(&pod.uid);
                            drop(state);
                            tasks.spawn(async move {
                                writer.bind(queued, &pod).await;
                                drop(permit);
                            });
                        }
                        Err(error) => {
                            let report = self.unschedulable(queued, error);
                            tasks.spawn(async move {
                                if let Some((object, message)) = report {
                                    writer.report(&object, "Unschedulable", &message).await;
                                }
                                drop(permit);
                            });
                        }
                    }
                    tokio::task::yield_now().await;
                }
                Err(Some(at)) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at.into()) => {}
                },
                Err(None) => self.wake.notified().await,
            }
        }
    }

    /// Puts a pod that fits nowhere aside. Answers what there is to report.
    fn unschedulable(&self, tried: Queued, error: FitError) -> Option<(Arc<Object>, String)> {
        let message = error.to_string();
        let object = self.put_back(tried, Failure::Rejected(error.rejected_by))?;
        tracing::debug!(pod = %object.key(), %message, "no fit");
        Some((object, message))
    }

    /// Puts a pod back into the queue, as it now is; None when it is gone or has a node.
    fn put_back(&self, tried: Queued, failure: Failure) -> Option<Arc<Object>> {
        let mut state = self.state.lock();
        let object = self.pods.by_key(&tried.pod.key()).filter(|o| {
            o.facts.uid == tried.pod.uid && !o.facts.deleting && o.facts.field("spec.nodeName") == Some("")
        });
        let Some(object) = object else {
            state.queue.done(&tried.pod.uid);
            return None;
        };
        let same = object.facts.generation == tried.pod.generation;
        let pod = if same { tried.pod.clone() } else { Arc::new(Pod::of(&object)) };
        state.queue.failed(tried, pod, failure, Instant::now());
        drop(state);
        self.wake.notify_one();
        Some(object)
    }

    async fn bind(&self, tried: Queued, pod: &Pod) {
        let target = Target::new(&Gvr::new("", "v1", "pods"), &pod.namespace, &pod.name).subresource("binding");
        let binding = value!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": &pod.name, "namespace": &pod.namespace, "uid": &pod.uid},
            "target": {"kind": "Node", "name": &pod.node},
        });
        match self.api.create(&target, binding, &self.options()).await {
            Ok(_) => {
                let about = value!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": &pod.name, "namespace": &pod.namespace, "uid": &pod.uid},
                });
                let message = format!("Successfully assigned {}/{} to {}", pod.namespace, pod.name, pod.node);
                self.recorder.normal(&about, "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(pod = %pod.key(), node = %pod.node, %error, "failed to bind");
                {
                    let mut state = self.state.lock();
                    if let Some(forgotten) = state.cache.forget(&pod.uid) {
                        state.queue.event(&ClusterEvent::PodRemoved(forgotten), Instant::now());
                    }
                }
                if let Some(object) = self.put_back(tried, Failure::Error) {
                    let message = format!("running Bind plugin \"DefaultBinder\": {error}");
                    self.report(&object, "SchedulerError", &message).await;
                }
            }
        }
    }

    /// Says on the pod and in an Event why it has no node.
    async fn report(&self, object: &Object, reason: &str, message: &str) {
        let pod = object.value();
        let note = match message.char_indices().nth(LONGEST_NOTE - 4) {
            Some((at, _)) => format!("{} ...", &message[..at]),
            None => message.to_string(),
        };
        self.recorder.warning(&pod, "FailedScheduling", note);
        let Some(condition) = condition(&pod, reason, message, canopus_client::now()) else { return };
        let target = Target::new(&Gvr::new("", "v1", "pods"), object.namespace(), object.name()).subresource("status");
        let patch = value!({"metadata": {"uid": &object.facts.uid}, "status": {"conditions": vec![condition]}});
        if let Err(error) = self.api.patch(&target, Patch::Strategic(patch), &self.options()).await
            && !gone(&error)
        {
            tracing::warn!(pod = %object.key(), %error, "failed to say why the pod has no node");
        }
    }

    fn options(&self) -> WriteOptions {
        WriteOptions { field_manager: "kube-scheduler".into(), ..WriteOptions::default() }
    }
}

fn is_finished(pod: &Object) -> bool {
    matches!(pod.facts.field("status.phase"), Some("Succeeded" | "Failed"))
}

/// The pod was deleted, or deleted and made anew.
fn gone(error: &Status) -> bool {
    error.is_not_found() || error.is_conflict()
}

/// The PodScheduled condition to write; None when the pod has it already.
fn condition(pod: &Value, reason: &str, message: &str, now: Time) -> Option<Value> {
    let known = pod["status"]["conditions"].items().iter().find(|c| c["type"].str() == "PodScheduled");
    let known = known.unwrap_or(&Value::Null);
    let generation = pod["metadata"]["generation"].int();
    let says = |field: &str, text: &str| known[field].str() == text;
    let same = says("status", "False") && says("reason", reason) && says("message", message);
    if same && known["observedGeneration"].int() == generation {
        return None;
    }
    let since = if says("status", "False") { known["lastTransitionTime"].clone() } else { now.into() };
    Some(value!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": generation,
    }))
}
