//! Simulated nodes (upstream's kubemark): they register, renew their leases, and say of every pod that is bound to
//! them that it runs, with the statuses that a node agent writes. They run nothing.

use canopus_api::{
    Api, DeleteOptions, FieldSelector, Gvr, ListOptions, Object, Patch, Status, Target, Value, WatchEvent,
    WriteOptions, value,
};
use canopus_client::now;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a node agent renews its lease.
const LEASE: Duration = Duration::from_secs(10);
/// Nodes that register at once.
const AT_ONCE: usize = 64;

/// A crowd of nodes; they leave when this is dropped.
pub struct SimulatedNodes {
    running: watch::Receiver<usize>,
    shutdown: CancellationToken,
}

impl Drop for SimulatedNodes {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The name of one of them.
pub fn name(number: usize) -> String {
    format!("simulated-{number:05}")
}

impl SimulatedNodes {
    /// Registers `count` nodes and has them work, on the threads of the caller. `door` gives the API as the node of a
    /// name sees it.
    ///
    /// # Errors
    /// What the server answered to a registration.
    pub async fn join<F>(count: usize, door: impl Fn(String) -> F) -> Result<SimulatedNodes, Status>
    where
        F: Future<Output = Result<Arc<dyn Api>, Status>>,
    {
        let (sender, running) = watch::channel(0);
        let (sender, shutdown) = (Arc::new(sender), CancellationToken::new());
        let nodes: Vec<Arc<SimulatedNode>> = stream::iter(0..count)
            .map(|number| {
                let (name, running) = (name(number), sender.clone());
                let door = door(name.clone());
                async move {
                    let node = Arc::new(SimulatedNode { name, number, api: door.await?, running });
                    node.register().await?;
                    Ok::<_, Status>(node)
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for node in nodes {
            tokio::spawn(node.clone().follow(shutdown.clone()));
            tokio::spawn(node.renew(shutdown.clone()));
        }
        Ok(SimulatedNodes { running, shutdown })
    }

    /// Waits until the server has been told of so many pods in all that they run.
    pub async fn ran(&self, pods: usize) {
        // The nodes hold the sender; when they have left, there is nothing to wait for.
        let _ = self.running.clone().wait_for(|count| *count >= pods).await;
    }

    /// Of how many pods it has been told.
    pub fn count(&self) -> usize {
        *self.running.borrow()
    }
}

struct SimulatedNode {
    name: String,
    number: usize,
    api: Arc<dyn Api>,
    running: Arc<watch::Sender<usize>>,
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "kubelet".into(), ..WriteOptions::default() }
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

impl SimulatedNode {
    async fn register(&self) -> Result<(), Status> {
        let nodes = Gvr::new("", "v1", "nodes");
        self.api.create(&Target::new(&nodes, "", ""), self.node(), &options()).await?;
        let target = Target::new(&nodes, "", &self.name).subresource("status");
        self.api.patch(&target, Patch::Merge(value!({"status": self.status()})), &options()).await?;
        self.api.create(&Target::new(&leases(), LEASES, ""), self.lease(), &options()).await?;
        Ok(())
    }

    fn node(&self) -> Value {
        value!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": &self.name, "labels": {
                "kubernetes.io/hostname": &self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            }},
        })
    }

    fn status(&self) -> Value {
        let now = now();
        let condition = |kind: &str, status: &str, reason: &str| {
            value!({
                "type": kind, "status": status, "reason": reason, "message": "as simulated",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            })
        };
        let capacity = value!({
            "cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti", "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
        });
        value!({
            "capacity": capacity.clone(), "allocatable": capacity,
            "addresses": [{"type": "InternalIP", "address": self.ip()}, {"type": "Hostname", "address": &self.name}],
            "nodeInfo": {
                "machineID": &self.name, "systemUUID": &self.name, "bootID": &self.name, "kernelVersion": "6.12",
                "osImage": "simulated", "operatingSystem": "linux", "architecture": "amd64",
                "containerRuntimeVersion": "simulated://1", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
            },
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        })
    }

    fn ip(&self) -> String {
        format!("192.168.{}.{}", self.number / 250 % 250, self.number % 250 + 1)
    }

    fn lease(&self) -> Value {
        value!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": &self.name, "namespace": LEASES},
            "spec": {"holderIdentity": &self.name, "leaseDurationSeconds": 40, "renewTime": now().rfc3339_micro()},
        })
    }

    async fn renew(self: Arc<Self>, shutdown: CancellationToken) {
        // Spread over the period, as those of real nodes are.
        let share = u32::try_from(self.number % 1000).unwrap_or_default();
        let first = tokio::time::Instant::now() + LEASE * share / 1000;
        let mut ticks = tokio::time::interval_at(first, LEASE);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let target = Target::new(&leases(), LEASES, &self.name);
            // The next renewal comes anyway.
            let _ = self.api.update(&target, self.lease(), &options()).await;
        }
    }

    /// Follows its pods, from the first list on and again whenever a watch ends.
    async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut known = HashSet::new();
        loop {
            tokio::select! {
                failed = self.watch(&mut known) => if failed.is_err() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                },
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn watch(self: &Arc<Self>, known: &mut HashSet<String>) -> Result<(), Status> {
        let mine = ListOptions { fields: FieldSelector::equal("spec.nodeName", &self.name), ..ListOptions::default() };
        let all = Target::new(&pods(), "", "");
        let list = self.api.list(&all, &mine).await?;
        list.items.iter().for_each(|pod| self.see(pod, known));
        let mut events = self.api.watch(&all, &ListOptions { resource_version: Some(list.revision), ..mine }).await?;
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.see(&pod, known),
                WatchEvent::Deleted(pod) => {
                    known.remove(pod.facts.uid.as_str());
                }
                WatchEvent::Bookmark { .. } => {}
            }
        }
        Ok(())
    }

    fn see(self: &Arc<Self>, pod: &Arc<Object>, known: &mut HashSet<String>) {
        let uid = pod.facts.uid.as_str();
        let new = known.insert(uid.into());
        if pod.facts.deleting {
            tokio::spawn(self.clone().end(pod.clone()));
        } else if new && pod.facts.field("status.phase") == Some("Pending") {
            tokio::spawn(self.clone().start(pod.clone()));
        }
    }

    async fn start(self: Arc<Self>, pod: Arc<Object>) {
        let value = pod.value();
        for status in [self.starting(&value), self.running(&value)] {
            let patch = Patch::Merge(value!({"metadata": {"uid": &pod.facts.uid}, "status": status}));
            let target = Target::new(&pods(), pod.namespace(), pod.name()).subresource("status");
            if self.api.patch(&target, patch, &options()).await.is_err() {
                return;
            }
        }
        self.running.send_modify(|count| *count += 1);
    }

    async fn end(self: Arc<Self>, pod: Arc<Object>) {
        let now = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(pod.facts.uid.clone()),
            ..DeleteOptions::default()
        };
        // One that is gone is what was wanted.
        let _ = self.api.delete(&Target::new(&pods(), pod.namespace(), pod.name()), &now).await;
    }

    fn conditions(pod: &Value, ready: bool) -> Vec<Value> {
        let generation = pod["metadata"]["generation"].clone();
        let condition = |kind: &str, holds: bool| {
            let mut condition = value!({
                "type": kind, "status": if holds { "True" } else { "False" }, "lastProbeTime": null,
                "lastTransitionTime": now(), "observedGeneration": generation.clone(),
            });
            if !holds && kind != "PodReadyToStartContainers" {
                condition.set("reason", "ContainersNotReady");
                condition.set("message", "containers with unready status: [app]");
            }
            condition
        };
        vec![
            condition("PodReadyToStartContainers", ready),
            condition("Initialized", true),
            condition("Ready", ready),
            condition("ContainersReady", ready),
            condition("PodScheduled", true),
        ]
    }

    /// What is said first: the pod is there, its containers are being made.
    fn starting(&self, pod: &Value) -> Value {
        let containers = pod["spec"]["containers"].items().iter().map(|c| {
            value!({
                "name": &c["name"], "image": &c["image"], "imageID": "", "restartCount": 0, "ready": false,
                "started": false, "lastState": {}, "state": {"waiting": {"reason": "ContainerCreating"}},
                "resources": &c["resources"],
            })
        });
        value!({
            "phase": "Pending", "startTime": now(), "qosClass": &pod["status"]["qosClass"], "hostIP": self.ip(),
            "hostIPs": [{"ip": self.ip()}], "observedGeneration": &pod["metadata"]["generation"],
            "containerStatuses": containers.collect::<Vec<_>>(), "conditions": Self::conditions(pod, false),
        })
    }

    /// And what is said when they run.
    fn running(&self, pod: &Value) -> Value {
        let ip = format!("100.64.{}.{}", self.number % 256, self.number / 256 + 2);
        let uid = pod["metadata"]["uid"].str();
        let containers = pod["spec"]["containers"].items().iter().map(|c| {
            value!({
                "name": &c["name"], "image": &c["image"], "restartCount": 0, "ready": true, "started": true,
                "imageID": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "containerID": format!("simulated://{uid}"), "lastState": {},
                "state": {"running": {"startedAt": now()}}, "resources": &c["resources"],
            })
        });
        value!({
            "phase": "Running", "podIP": &ip, "podIPs": [{"ip": &ip}],
            "containerStatuses": containers.collect::<Vec<_>>(), "conditions": Self::conditions(pod, true),
        })
    }
}

const LEASES: &str = "kube-node-lease";

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}
