//! ReplicaSets, and ReplicationControllers, which are the same but for their selector's shape: as many pods of a
//! template as asked for (upstream `pkg/controller/replicaset`).

mod plan;
mod rank;
mod tally;

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, LabelSelector, Object, Patch, Status, Target, Value, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use futures::future::join_all;
use plan::Counts;
use std::sync::Arc;
use tally::Tally;

/// Upstream's `BurstReplicas`: how many pods one pass creates or deletes at most.
const BURST: usize = 500;

/// What tells the two kinds apart.
pub(crate) struct Flavor {
    group: &'static str,
    plural: &'static str,
    account: &'static str,
    component: &'static str,
    selector: fn(&Value) -> Result<LabelSelector, String>,
}

pub(crate) const REPLICA_SET: Flavor = Flavor {
    group: "apps",
    plural: "replicasets",
    account: "replicaset-controller",
    component: "replicaset-controller",
    selector: LabelSelector::from_value,
};

pub(crate) const REPLICATION_CONTROLLER: Flavor = Flavor {
    group: "",
    plural: "replicationcontrollers",
    account: "replication-controller",
    component: "replication-controller",
    selector: |selector| Ok(LabelSelector::from_map(selector)),
};

struct ReplicaSets {
    flavor: &'static Flavor,
    gvr: Gvr,
    pod_gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    sets: Arc<Informer>,
    pods: Arc<Informer>,
    tally: Arc<Tally>,
}

pub(crate) async fn run(context: Arc<Context>, flavor: &'static Flavor) {
    let sets = context.informer(flavor.group, "v1", flavor.plural);
    let pods = context.informer("", "v1", "pods");
    let tally = Tally::of(&pods);
    let queue = Arc::new(Queue::default());
    queue_changes(&sets, &queue);
    let (owners, orphans) = (sets.clone(), queue.clone());
    queue_owners(&pods, KeysByUid::of(&sets), &queue, move |pod| {
        queue_matching(&owners, &orphans, pod, |set, pod| {
            (flavor.selector)(&set["spec"]["selector"]).is_ok_and(|s| s.matches(&pod.facts))
        });
    });
    let api = context.api(flavor.account);
    let recorder = context.recorder(&api, flavor.component);
    let gvr = Gvr::new(flavor.group, "v1", flavor.plural);
    let pod_gvr = Gvr::new("", "v1", "pods");
    let sets = ReplicaSets { flavor, gvr, pod_gvr, api, recorder, sets, pods, tally };
    context.work(queue, 5, Arc::new(sets)).await;
}

#[async_trait]
impl Reconcile for ReplicaSets {
    fn name(&self) -> &'static str {
        self.flavor.component
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.sets.by_key(key) else {
            return Ok(Outcome::Done);
        };
        let set = object.value();
        let Ok(selector) = (self.flavor.selector)(&set["spec"]["selector"]) else {
            // Validation refuses these; one from before that is left alone.
            return Ok(Outcome::Done);
        };
        let now = canopus_client::now();
        let (counts, pods) = match self.counted(&set, &object, &selector) {
            Some(counts) => (counts, Vec::new()),
            None => {
                let pods = self.claim(&set, &object, &selector).await?;
                (Counts::of(&pods, &set, now), pods)
            }
        };
        let surplus = plan::surplus(&pods, counts.surplus(&set), || self.related(&set), now);
        let result = match object.facts.deleting {
            true => Ok(()),
            false => self.execute(&set, counts.missing(&set), &surplus).await,
        };
        let failure = result.as_ref().err().map(|e| e.message.to_string());
        let status = plan::status(&set, &counts, failure.as_deref(), now);
        update_status(&*self.api, &self.gvr, &self.sets, &set, status).await?;
        result?;
        Ok(counts.look_again.map_or(Outcome::Done, Outcome::After))
    }
}

impl ReplicaSets {
    /// The set's pods in numbers, as long as there is no need to look at each of them: none is to be adopted, let go
    /// of or deleted, and none becomes available with time.
    fn counted(&self, set: &Value, object: &Object, selector: &LabelSelector) -> Option<Counts> {
        if object.facts.deleting || plan::min_ready_seconds(set) > 0 || !self.adoptable(object, selector).is_empty() {
            return None;
        }
        let counts = self.tally.counts(&object.facts.uid, selector, &plan::template(set))?;
        (counts.surplus(set) == 0).then_some(counts)
    }

    /// The orphans that match.
    fn adoptable(&self, object: &Object, selector: &LabelSelector) -> Vec<Arc<Object>> {
        let mut orphans = self.pods.orphans(object.namespace());
        orphans.retain(|pod| selector.matches(&pod.facts) && crate::pods::is_active(pod));
        orphans
    }

    /// The pods this set controls, after adopting orphans that match and releasing those that no longer do.
    async fn claim(&self, set: &Value, object: &Object, selector: &LabelSelector) -> Result<Vec<Arc<Object>>, Status> {
        let uid = &object.facts.uid;
        let mine = |pod: &Arc<Object>| pod.facts.controller.as_ref() == Some(uid);
        let (mut owned, strays): (Vec<_>, Vec<_>) = self
            .pods
            .owned_by(uid)
            .into_iter()
            .filter(mine)
            .partition(|pod| selector.matches(&pod.facts) || object.facts.deleting);
        if object.facts.deleting {
            return Ok(owned);
        }
        for pod in strays {
            let release =
                value!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": uid}], "uid": &pod.facts.uid}});
            self.patch_pod(&pod, release).await?;
        }
        let orphans = self.adoptable(object, selector);
        if orphans.is_empty() {
            return Ok(owned);
        }
        // Adopting for a set that was deleted meanwhile would hand its pods to the garbage collector.
        let live = self.api.get(&Target::new(&self.gvr, object.namespace(), object.name())).await?;
        if live.facts.uid != *uid || live.facts.deleting {
            return Ok(owned);
        }
        for pod in orphans {
            let adopt = value!({"metadata": {"ownerReferences": [controller_ref(set)], "uid": &pod.facts.uid}});
            owned.extend(self.patch_pod(&pod, adopt).await?);
        }
        Ok(owned)
    }

    /// Patches a pod's owners; None when it is gone or another one has its name now.
    async fn patch_pod(&self, pod: &Object, patch: Value) -> Result<Option<Arc<Object>>, Status> {
        let target = Target::new(&self.pod_gvr, pod.namespace(), pod.name());
        match self.api.patch(&target, Patch::Strategic(patch), &writes()).await {
            Ok(patched) => {
                self.pods.reached(patched.revision).await;
                Ok(Some(patched))
            }
            Err(error) if error.is_not_found() || error.code == 422 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pods of all sets under the same owner: those on crowded nodes are deleted first.
    fn related(&self, set: &Value) -> Vec<Arc<Object>> {
        let Some(owner) = controller_of(set)["uid"].as_str() else {
            return Vec::new();
        };
        let siblings = self.sets.owned_by(owner);
        siblings.iter().flat_map(|s| self.pods.owned_by(&s.facts.uid)).collect()
    }

    async fn execute(&self, set: &Value, missing: usize, surplus: &[Arc<Object>]) -> Result<(), Status> {
        self.create(set, missing).await?;
        let deletions = surplus.iter().take(BURST).map(|pod| self.delete_pod(set, pod));
        let mut failed = None;
        let mut newest = 0;
        for result in join_all(deletions).await {
            match result {
                Ok(revision) => newest = newest.max(revision),
                Err(error) => failed = Some(error),
            }
        }
        self.pods.reached(newest).await;
        failed.map_or(Ok(()), Err)
    }

    /// Creates in batches that double: one refused pod costs one request, not hundreds.
    async fn create(&self, set: &Value, count: usize) -> Result<(), Status> {
        let mut left = count.min(BURST);
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.create_pod(set))).await;
            let newest = results.iter().flatten().copied().max();
            self.pods.reached(newest.unwrap_or(0)).await;
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_pod(&self, set: &Value) -> Result<u64, Status> {
        let pod = plan::pod(set);
        match self.api.create(&target(&self.pod_gvr, &pod), pod, &writes()).await {
            Ok(created) => {
                self.recorder.normal(set, "SuccessfulCreate", format!("Created pod: {}", created.name()));
                Ok(created.revision)
            }
            Err(error) => {
                // In a terminating namespace every create fails, and that is as it should be.
                if !is_namespace_terminating(&error) {
                    self.recorder.warning(set, "FailedCreate", format!("Error creating: {}", error.message));
                }
                Err(error)
            }
        }
    }

    async fn delete_pod(&self, set: &Value, pod: &Object) -> Result<u64, Status> {
        let (options, name) = (delete_uid(&pod.facts.uid), pod.name());
        match self.api.delete(&Target::new(&self.pod_gvr, pod.namespace(), name), &options).await {
            Ok(deleted) => {
                self.recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(deleted.revision)
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(0),
            Err(error) => {
                self.recorder.warning(set, "FailedDelete", format!("Error deleting: {}", error.message));
                Err(error)
            }
        }
    }
}
