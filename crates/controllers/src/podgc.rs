//! Collects pods that nobody else will: of nodes that are gone, deleted before they were placed, and finished ones
//! beyond a number (upstream `pkg/controller/podgc`).

use crate::context::*;
use crate::pods;
use async_trait::async_trait;
use canopus_api::{Api, DeleteOptions, Gvr, Object, Patch, Status, Target, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use std::sync::Arc;
use std::time::Duration;

/// Upstream's `gcCheckPeriod`, and how long a node must be gone (`quarantineTime`).
const PERIOD: Duration = Duration::from_secs(20);
const QUARANTINE: Duration = Duration::from_secs(40);
/// Upstream `--terminated-pod-gc-threshold`.
const TERMINATED: usize = 12500;

struct Collector {
    api: Arc<dyn Api>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let pods = context.informer("", "v1", "pods");
    let nodes = context.informer("", "v1", "nodes");
    let queue = Arc::new(Queue::default());
    queue.add_after("all".into(), PERIOD);
    let gone = queue.clone();
    nodes.on_change(move |change| {
        if change.new.is_none() {
            gone.add_after("all".into(), QUARANTINE);
        }
    });
    let api = context.api("pod-garbage-collector");
    context.work(queue, 1, Arc::new(Collector { api, pods, nodes })).await;
}

/// Finished pods beyond `threshold`, the oldest first.
fn terminated(all: &[Arc<Object>], threshold: usize) -> Vec<Arc<Object>> {
    let finished = |pod: &&Arc<Object>| matches!(pod.facts.field("status.phase"), Some("Succeeded" | "Failed"));
    let surplus = all.iter().filter(finished).count().saturating_sub(threshold);
    if surplus == 0 {
        return Vec::new();
    }
    let mut finished: Vec<Arc<Object>> = all.iter().filter(finished).cloned().collect();
    finished.sort_by_cached_key(|pod| (pods::created(&pod.value()), pod.facts.name.clone()));
    finished.truncate(surplus);
    finished
}

#[async_trait]
impl Reconcile for Collector {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    async fn reconcile(&self, _: &Key) -> Result<Outcome, Status> {
        // There may be very many, and nearly all stay: their facts say so.
        let all = View::list(&*self.pods, "");
        for pod in terminated(&all, TERMINATED) {
            self.delete(&pod, None).await?;
        }
        for pod in &all {
            let node = pod.facts.field("spec.nodeName").unwrap_or_default();
            if node.is_empty() {
                if pod.facts.deleting {
                    self.delete(pod, None).await?;
                }
            } else if self.nodes.by_key(node).is_none() && self.is_gone(node).await? {
                let message = "PodGC: node no longer exists";
                self.delete(pod, Some(message)).await?;
            }
        }
        Ok(Outcome::After(PERIOD))
    }
}

impl Collector {
    async fn is_gone(&self, node: &str) -> Result<bool, Status> {
        Ok(gone(self.api.get(&Target::new(&Gvr::new("", "v1", "nodes"), "", node)).await)?.is_none())
    }

    /// Deletes at once: there is no kubelet to wait for. A pod that ran on a lost node is marked as failed first.
    async fn delete(&self, pod: &Object, lost: Option<&str>) -> Result<(), Status> {
        let at = Target::new(&Gvr::new("", "v1", "pods"), pod.namespace(), pod.name());
        if let Some(message) = lost.filter(|_| !pods::is_finished(pod)) {
            let disrupted = value!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                "lastTransitionTime": canopus_client::now(),
            });
            let patch = Patch::Strategic(value!({"status": {"phase": "Failed", "conditions": [disrupted]}}));
            gone(self.api.patch(&at.clone().subresource("status"), patch, &writes()).await)?;
        }
        let options = DeleteOptions { grace_period_seconds: Some(0), ..delete_uid(&pod.facts.uid) };
        gone(self.api.delete(&at, &options).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_finished_pods_go() {
        let pod = |name: &str, phase: &str, second: i64| {
            let pod = value!({"metadata": {"name": name, "creationTimestamp": canopus_api::Time::from_unix(second)},
                "status": {"phase": phase}});
            Arc::new(Object::from_value(pod, &["status.phase"], 1))
        };
        let all = [pod("b", "Failed", 2), pod("a", "Succeeded", 1), pod("c", "Running", 0)];
        let names = |n| terminated(&all, n).iter().map(|p| p.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names(1), ["a"]);
        assert!(names(2).is_empty());
    }
}
