//! Eviction by taint: a pod leaves a node that has a NoExecute taint it doesn't tolerate, or tolerates only for a
//! while (upstream `pkg/controller/tainteviction`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Patch, Status, Time, Value, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

struct Evictor {
    api: Arc<dyn Api>,
    recorder: Recorder,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let nodes = context.informer("", "v1", "nodes");
    let pods = context.informer("", "v1", "pods");
    let queue = Arc::new(Queue::default());
    // The nodes that have such taints: few.
    let tainted: Arc<Mutex<HashMap<CompactString, Vec<Value>>>> = Arc::default();
    let (placed, known) = (queue.clone(), tainted.clone());
    pods.on_change(move |change| {
        let Some(pod) = change.new else { return };
        if pod.facts.field("spec.nodeName").is_some_and(|node| known.lock().contains_key(node)) {
            placed.add(pod.key());
        }
    });
    let (changed, all_pods) = (queue.clone(), pods.clone());
    nodes.on_change(move |change| {
        let name = change.object().facts.name.clone();
        let taints: Vec<Value> = change.new.map(|n| no_execute(&n.value()).cloned().collect()).unwrap_or_default();
        let before = match taints.is_empty() {
            true => tainted.lock().remove(&name),
            false => tainted.lock().insert(name, taints.clone()),
        };
        if before.unwrap_or_default() == taints {
            return;
        }
        for pod in View::list(&*all_pods, "") {
            if pod.facts.field("spec.nodeName") == Some(change.object().name()) {
                changed.add(pod.key());
            }
        }
    });
    let api = context.api("node-controller");
    let recorder = context.recorder(&api, "taint-eviction-controller");
    context.work(queue, 4, Arc::new(Evictor { api, recorder, pods, nodes })).await;
}

fn no_execute(node: &Value) -> impl Iterator<Item = &Value> {
    node["spec"]["taints"].items().iter().filter(|taint| taint["effect"].str() == "NoExecute")
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let matches = |field: &str| toleration[field].str().is_empty() || toleration[field] == taint[field];
    let exists = toleration["operator"].str() == "Exists";
    matches("effect") && matches("key") && (exists || toleration["value"].str() == taint["value"].str())
}

/// When the pod must leave the node: None for never.
fn plan(pod: &Value, node: &Value, now: Time) -> Option<Duration> {
    let mut earliest: Option<Duration> = None;
    for taint in no_execute(node) {
        let tolerating = pod["spec"]["tolerations"].items().iter().filter(|t| tolerates(t, taint));
        let tolerating: Vec<&Value> = tolerating.collect();
        let leave = match tolerating.iter().filter_map(|t| t["tolerationSeconds"].as_i64()).min() {
            _ if tolerating.is_empty() => Duration::ZERO,
            None => continue,
            Some(seconds) => {
                let since = Time::parse(taint["timeAdded"].str()).unwrap_or(now);
                since.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))).since(now)
            }
        };
        earliest = Some(earliest.map_or(leave, |e| e.min(leave)));
    }
    earliest
}

#[async_trait]
impl Reconcile for Evictor {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(pod) = self.pods.by_key(key).filter(|pod| !pod.facts.deleting).map(|pod| pod.value()) else {
            return Ok(Outcome::Done);
        };
        let Some(node) = self.nodes.by_key(pod["spec"]["nodeName"].str()).map(|n| n.value()) else {
            return Ok(Outcome::Done);
        };
        let now = canopus_client::now();
        match plan(&pod, &node, now) {
            None => return Ok(Outcome::Done),
            Some(wait) if !wait.is_zero() => return Ok(Outcome::After(wait)),
            Some(_) => {}
        }
        self.recorder.normal(&pod, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
        let at = target(&Gvr::new("", "v1", "pods"), &pod);
        let disrupted = value!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": now,
        });
        let patch = Patch::Strategic(value!({"status": {"conditions": [disrupted]}}));
        gone(self.api.patch(&at.clone().subresource("status"), patch, &writes()).await)?;
        gone(self.api.delete(&at, &delete_uid(pod["metadata"]["uid"].str())).await)?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_when_no_longer_tolerated() {
        let node = value!({"spec": {"taints": [
            {"key": "k", "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:00Z"}, {"key": "z", "effect": "NoSchedule"}]}});
        let table = [
            (value!([]), Some(0)),
            (value!([{"key": "k", "operator": "Exists"}]), None),
            (value!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]), Some(290)),
            (value!([{"key": "other", "operator": "Exists"}]), Some(0)),
            (value!([{"operator": "Exists", "effect": "NoSchedule"}]), Some(0)),
        ];
        for (tolerations, seconds) in table {
            let pod = value!({"spec": {"tolerations": tolerations}});
            assert_eq!(plan(&pod, &node, Time::from_unix(10)), seconds.map(Duration::from_secs));
        }
    }
}
