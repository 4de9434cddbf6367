//! Deployments: ReplicaSets of each version of a template, scaled so that a new version takes over step by step
//! (upstream `pkg/controller/deployment`).

mod hash;
mod plan;
mod revision;
mod rollout;
mod scale;
mod set;
mod status;

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, LabelSelector, Object, Patch, Status, Target, Value, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use plan::{Observed, Plan};
use std::sync::Arc;

struct Deployments {
    gvr: Gvr,
    set_gvr: Gvr,
    api: Arc<dyn Api>,
    recorder: Recorder,
    deployments: Arc<Informer>,
    sets: Arc<Informer>,
    pods: Arc<Informer>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let deployments = context.informer("apps", "v1", "deployments");
    let sets = context.informer("apps", "v1", "replicasets");
    let pods = context.informer("", "v1", "pods");
    let queue = Arc::new(Queue::default());
    queue_changes(&deployments, &queue);
    let (owners, orphans) = (deployments.clone(), queue.clone());
    let keys = KeysByUid::of(&deployments);
    queue_owners(&sets, keys.clone(), &queue, move |set| {
        queue_matching(&owners, &orphans, set, |deployment, set| selector(deployment).matches(&set.facts));
    });
    queue_recreations(&pods, &sets, keys, &queue);
    let api = context.api("deployment-controller");
    let recorder = context.recorder(&api, "deployment-controller");
    let (gvr, set_gvr) = (Gvr::new("apps", "v1", "deployments"), Gvr::new("apps", "v1", "replicasets"));
    let controller = Deployments { gvr, set_gvr, api, recorder, deployments, sets, pods };
    context.work(queue, 5, Arc::new(controller)).await;
}

/// A Recreate waits for the last old pod to be gone, which only the pod's deletion tells.
fn queue_recreations(pods: &Informer, sets: &Arc<Informer>, keys: Arc<KeysByUid>, queue: &Arc<Queue<Key>>) {
    let (set_keys, sets, queue) = (KeysByUid::of(sets), sets.clone(), queue.clone());
    pods.on_change(move |change| {
        if change.new.is_some() {
            return;
        }
        let set = change.object().facts.controller.as_ref().and_then(|uid| set_keys.get(uid));
        let set = set.and_then(|key| sets.by_key(&key));
        if let Some(key) = set.and_then(|set| keys.get(set.facts.controller.as_ref()?)) {
            queue.add(key);
        }
    });
}

fn selector(deployment: &Value) -> LabelSelector {
    LabelSelector::from_value(&deployment["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

#[async_trait]
impl Reconcile for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.deployments.by_key(key) else {
            return Ok(Outcome::Done);
        };
        let deployment = object.value();
        if selector(&deployment).is_everything() {
            self.recorder.warning(
                &deployment,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Outcome::Done);
        }
        let sets = self.claim(&deployment, &object).await?;
        let old_pods = |set: &Arc<Object>| self.pods.any_owned_by(&set.facts.uid, |pod| !crate::pods::is_finished(pod));
        let busy = sets.iter().filter(|set| old_pods(set)).map(|set| set.facts.uid.clone()).collect();
        let sets: Vec<Arc<Value>> = sets.iter().map(|set| set.value()).collect();
        let now = canopus_client::now();
        let plan = plan::plan(&Observed { deployment: &deployment, sets: &sets, busy: &busy, now });
        self.execute(&deployment, plan).await
    }
}

impl Deployments {
    /// The ReplicaSets this deployment controls, after adopting orphans that match and releasing strays.
    async fn claim(&self, deployment: &Value, object: &Object) -> Result<Vec<Arc<Object>>, Status> {
        let (uid, selector) = (&object.facts.uid, selector(deployment));
        let mine = |set: &Arc<Object>| set.facts.controller.as_ref() == Some(uid);
        let owned = self.sets.owned_by(uid).into_iter().filter(mine);
        if object.facts.deleting {
            return Ok(owned.collect());
        }
        let (mut owned, strays): (Vec<_>, Vec<_>) = owned.partition(|set| selector.matches(&set.facts));
        for set in strays {
            let release =
                value!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": uid}], "uid": &set.facts.uid}});
            self.patch_set(&set, release).await?;
        }
        let mut orphans = self.sets.orphans(object.namespace());
        orphans.retain(|set| !set.facts.deleting && selector.matches(&set.facts));
        if orphans.is_empty() {
            return Ok(owned);
        }
        let live = self.api.get(&Target::new(&self.gvr, object.namespace(), object.name())).await?;
        if live.facts.uid != *uid || live.facts.deleting {
            return Ok(owned);
        }
        for set in orphans {
            let adopt = value!({"metadata": {"ownerReferences": [controller_ref(deployment)], "uid": &set.facts.uid}});
            owned.extend(self.patch_set(&set, adopt).await?);
        }
        Ok(owned)
    }

    async fn patch_set(&self, set: &Object, patch: Value) -> Result<Option<Arc<Object>>, Status> {
        let target = Target::new(&self.set_gvr, set.namespace(), set.name());
        match self.api.patch(&target, Patch::Strategic(patch), &writes()).await {
            Ok(patched) => {
                self.sets.reached(patched.revision).await;
                Ok(Some(patched))
            }
            Err(error) if error.is_not_found() || error.code == 422 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn execute(&self, deployment: &Value, plan: Plan) -> Result<Outcome, Status> {
        let mut plan = plan;
        if let Some(set) = plan.create.take() {
            self.create(deployment, &mut plan, set).await?;
        }
        for set in plan.update {
            let written = self.api.update(&target(&self.set_gvr, &set), set, &writes()).await?;
            self.sets.reached(written.revision).await;
        }
        for message in plan.events {
            self.recorder.normal(deployment, "ScalingReplicaSet", message);
        }
        for set in plan.delete {
            let options = delete_uid(set["metadata"]["uid"].str());
            if let Some(deleted) = gone(self.api.delete(&target(&self.set_gvr, &set), &options).await)? {
                self.sets.reached(deleted.revision).await;
            }
        }
        self.write(deployment, plan.revision.as_deref(), plan.status).await?;
        Ok(plan.look_again.map_or(Outcome::Done, Outcome::After))
    }

    /// Status and revision annotation: one write.
    async fn write(&self, deployment: &Value, revision: Option<&str>, status: Value) -> Result<(), Status> {
        let mut updated = deployment.clone();
        updated.set("status", status);
        if let Some(revision) = revision {
            updated.set_path(&["metadata", "annotations", revision::REVISION], revision);
        }
        if updated == *deployment {
            return Ok(());
        }
        let target = target(&self.gvr, deployment).subresource("status");
        let written = self.api.update(&target, updated, &writes()).await?;
        self.deployments.reached(written.revision).await;
        Ok(())
    }

    /// Creates the new ReplicaSet. A name that is taken by something else means two templates have the same hash.
    async fn create(&self, deployment: &Value, plan: &mut Plan, set: Value) -> Result<(), Status> {
        let at = target(&self.set_gvr, &set);
        let name = set["metadata"]["name"].str().to_string();
        let now = canopus_client::now();
        let error = match self.api.create(&at, set.clone(), &writes()).await {
            Ok(created) => {
                self.sets.reached(created.revision).await;
                status::created(deployment, &mut plan.status, &name, now);
                return Ok(());
            }
            Err(error) => error,
        };
        plan.events.clear();
        if error.is_already_exists() {
            let there = self.api.get(&at).await?;
            let ours = there.facts.controller.as_deref() == Some(deployment["metadata"]["uid"].str());
            if ours && set::same_template(&deployment["spec"]["template"], &there.value()["spec"]["template"]) {
                self.sets.reached(there.revision).await;
                return Ok(());
            }
            let mut status = deployment["status"].clone();
            status.set("collisionCount", status["collisionCount"].int() + 1);
            self.write(deployment, None, status).await?;
        } else if !is_namespace_terminating(&error) {
            let message = format!("Failed to create new replica set \"{name}\": {}", error.message);
            let mut status = deployment["status"].clone();
            if status::failed_create(deployment, &mut status, &message, now) {
                self.write(deployment, None, status).await?;
            }
            self.recorder.warning(deployment, "ReplicaSetCreateError", message);
        }
        Err(error)
    }
}
