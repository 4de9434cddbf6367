//! Nodes that stop reporting: their conditions become Unknown, taints follow the conditions, pods are marked unready
//! (upstream `pkg/controller/nodelifecycle`).

mod plan;

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Status, Target, Time, Value, View};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a node is looked at (upstream `--node-monitor-period`).
const PERIOD: Duration = Duration::from_secs(5);

struct Nodes {
    gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    leases: Arc<Informer>,
    pods: Arc<Informer>,
    /// When each node was last seen alive, by our clock: its own may be wrong.
    probes: Mutex<HashMap<Key, plan::Probe>>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let nodes = context.informer("", "v1", "nodes");
    let leases = context.informer("coordination.k8s.io", "v1", "leases");
    let pods = context.informer("", "v1", "pods");
    let queue = Arc::new(Queue::default());
    queue_changes(&nodes, &queue);
    let api = context.api("node-controller");
    let recorder = context.recorder(&api, "node-controller");
    let gvr = Gvr::new("", "v1", "nodes");
    let probes = Mutex::default();
    context.work(queue, 4, Arc::new(Nodes { gvr, api, recorder, nodes, leases, pods, probes })).await;
}

#[async_trait]
impl Reconcile for Nodes {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.nodes.by_key(key) else {
            self.probes.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let now = canopus_client::now();
        let lease = View::get(&*self.leases, "kube-node-lease", key).map_or(0, |lease| lease.revision);
        let node;
        let silent = {
            let mut probes = self.probes.lock();
            let probe = probes.entry(key.clone()).or_insert_with(|| plan::Probe::new(now));
            // Of thousands of nodes nearly all have only renewed their lease.
            if probe.alive(object.revision, lease, now) {
                return Ok(Outcome::After(PERIOD));
            }
            node = object.value();
            probe.observe(&node["status"], now)
        };
        let mut status = node["status"].clone();
        if silent >= plan::grace(&node) {
            status.set("conditions", plan::unknown(&node, now));
        }
        let went = condition(&node["status"], "Ready")["status"].str() == "True"
            && condition(&status, "Ready")["status"].str() != "True";
        if went {
            let message = format!("Node {key} status is now: NodeNotReady");
            self.recorder.normal(&node, "NodeNotReady", message);
        }
        update_status(&*self.api, &self.gvr, &self.nodes, &node, status.clone()).await?;
        self.taint(key, &status, now).await?;
        if condition(&status, "Ready")["status"].str() != "True" {
            self.mark_pods(key, now).await?;
        } else if let Some(probe) = self.probes.lock().get_mut(key) {
            probe.settle(object.revision);
        }
        Ok(Outcome::After(PERIOD))
    }
}

impl Nodes {
    async fn taint(&self, key: &Key, status: &Value, now: Time) -> Result<(), Status> {
        let Some(node) = self.nodes.by_key(key).map(|node| node.value()) else {
            return Ok(());
        };
        let taints = plan::taints(&node, status, now);
        if taints.as_slice() == node["spec"]["taints"].items() {
            return Ok(());
        }
        let mut tainted = Value::from(&*node);
        match taints.is_empty() {
            true => drop(tainted.remove_path(&["spec", "taints"])),
            false => tainted.set_path(&["spec", "taints"], taints),
        }
        let written = self.api.update(&target(&self.gvr, &node), tainted, &writes()).await?;
        self.nodes.reached(written.revision).await;
        Ok(())
    }

    /// Pods of a node that isn't ready are not ready: Services stop sending to them.
    async fn mark_pods(&self, node: &str, now: Time) -> Result<(), Status> {
        let gvr = Gvr::new("", "v1", "pods");
        for pod in View::list(&*self.pods, "") {
            if pod.facts.field("spec.nodeName") != Some(node) {
                continue;
            }
            let value = pod.value();
            if let Some(status) = plan::not_ready(&value["status"], now) {
                let options = canopus_api::Patch::Strategic(canopus_api::value!({"status": status}));
                let at = Target::new(&gvr, pod.namespace(), pod.name()).subresource("status");
                gone(self.api.patch(&at, options, &writes()).await)?;
                self.recorder.warning(&value, "NodeNotReady", "Node is not ready");
            }
        }
        Ok(())
    }
}
