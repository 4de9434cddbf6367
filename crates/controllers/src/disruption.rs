//! Says in each PodDisruptionBudget's status how many of its pods may be evicted (upstream `pkg/controller/disruption`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, LabelSelector, Object, Status, Target, Time, Value, View, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile, Recorder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an evicted pod may take until it is marked as deleted.
const DELETION: Duration = Duration::from_secs(120);

struct Budgets {
    api: Arc<dyn Api>,
    recorder: Recorder,
    gvr: Gvr,
    budgets: Arc<Informer>,
    pods: Arc<Informer>,
    sets: Arc<Informer>,
    deployments: Arc<Informer>,
    resources: Vec<crate::ResourceInfo>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let budgets = context.informer("policy", "v1", "poddisruptionbudgets");
    let pods = context.informer("", "v1", "pods");
    let sets = context.informer("apps", "v1", "replicasets");
    let deployments = context.informer("apps", "v1", "deployments");
    let queue = Arc::new(Queue::default());
    queue_changes(&budgets, &queue);
    let (all, changed) = (budgets.clone(), queue.clone());
    pods.on_change(move |change| {
        for budget in View::list(&*all, change.object().namespace()) {
            let selector = selector(&budget.value());
            if [change.old, change.new].into_iter().flatten().any(|pod| selector.matches(&pod.facts)) {
                changed.add(budget.key());
            }
        }
    });
    let api = context.api("disruption-controller");
    let recorder = context.recorder(&api, "controllermanager");
    let gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
    let resources = context.config.resources.clone();
    context.work(queue, 1, Arc::new(Budgets { api, recorder, gvr, budgets, pods, sets, deployments, resources })).await;
}

/// Without a selector a budget has no pods; an empty one selects all.
fn selector(budget: &Value) -> LabelSelector {
    LabelSelector::from_value(&budget["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

#[async_trait]
impl Reconcile for Budgets {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(object) = self.budgets.by_key(key) else { return Ok(Outcome::Done) };
        let budget = object.value();
        let selector = selector(&budget);
        let mut pods = View::list(&*self.pods, object.namespace());
        pods.retain(|pod| selector.matches(&pod.facts));
        if pods.is_empty() {
            self.recorder.normal(&budget, "NoPods", "No matching pods found");
        }
        let now = canopus_client::now();
        let (status, again) = match self.expected(&budget, &pods).await {
            Ok(expected) => plan(&budget, &pods, expected, now),
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                self.recorder.warning(&budget, "CalculateExpectedPodCountFailed", message);
                (failed(&budget, &why, now), None)
            }
        };
        update_status(&*self.api, &self.gvr, &self.budgets, &budget, status).await?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl Budgets {
    /// How many pods there should be: a share is one of what the pods' controllers are told to run.
    async fn expected(&self, budget: &Value, pods: &[Arc<Object>]) -> Result<i64, String> {
        let spec = &budget["spec"];
        if spec["maxUnavailable"].is_null() && spec["minAvailable"].as_str().is_none() {
            return Ok(pods.len() as i64);
        }
        let (mut scales, mut unmanaged) = (BTreeMap::new(), false);
        for pod in pods {
            let tree = pod.value();
            let owner = controller_of(&tree);
            if owner.is_null() {
                unmanaged = true;
            } else if !scales.contains_key(owner["uid"].str()) {
                let (uid, scale) = self.scale(owner, pod.namespace()).await?;
                // Also under the owner's own uid, so that it is looked up once; a Deployment's sets share its scale.
                scales.insert(owner["uid"].str().to_string(), (uid, scale));
            }
        }
        if unmanaged {
            self.recorder.warning(budget, "UnmanagedPods", format!("Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", canopus_api::json::to_string(&spec["selector"])));
        }
        Ok(scales.into_values().collect::<BTreeMap<String, i64>>().into_values().sum())
    }

    /// The uid and size of what an ownerReference leads to: of a ReplicaSet that a Deployment has made, the Deployment's.
    async fn scale(&self, owner: &Value, namespace: &str) -> Result<(String, i64), String> {
        let (name, uid) = (owner["name"].str(), owner["uid"].str());
        let group = owner["apiVersion"].str().split_once('/').map_or("", |(group, _)| group);
        let none = || format!("found no controllers for pod owner {}/{name}", owner["kind"].str());
        let size = |object: &Value| (object["metadata"]["uid"].str().to_string(), object["spec"]["replicas"].int());
        if (group, owner["kind"].str()) == ("apps", "ReplicaSet") {
            let set = View::get(&*self.sets, namespace, name).filter(|s| s.facts.uid == uid).ok_or_else(none)?.value();
            let maker = controller_of(&set);
            let deployment = View::get(&*self.deployments, namespace, maker["name"].str())
                .filter(|d| maker["kind"].str() == "Deployment" && d.facts.uid == maker["uid"].str());
            return Ok(deployment.map_or_else(|| size(&set), |deployment| size(&deployment.value())));
        }
        let known = |r: &&crate::ResourceInfo| r.gvr.group == group && r.kind == owner["kind"].str();
        let resource = self.resources.iter().find(known).ok_or_else(none)?;
        let target = Target::new(&resource.gvr, namespace, name).subresource("scale");
        let scale = self.api.get(&target).await.map_err(|error| error.message.to_string())?;
        Some(size(&scale.value())).filter(|(found, _)| found == uid).ok_or_else(none)
    }
}

/// `25%` of `whole`, rounded up, or the number itself.
fn scaled(value: &Value, whole: i64) -> i64 {
    match value.as_str() {
        None => value.int(),
        Some(text) => {
            let share: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            (share.saturating_mul(whole) + 99).div_euclid(100)
        }
    }
}

/// The new status, and when to look again.
fn plan(budget: &Value, pods: &[Arc<Object>], expected: i64, now: Time) -> (Value, Option<Duration>) {
    let (spec, old) = (&budget["spec"], &budget["status"]);
    let desired = match (&spec["maxUnavailable"], &spec["minAvailable"]) {
        (Value::Null, Value::Null) => 0,
        (Value::Null, least) => scaled(least, expected),
        (most, _) => (expected - scaled(most, expected)).max(0),
    };
    let (mut disrupted, mut again) = (Value::object(), None::<Duration>);
    for pod in pods.iter().filter(|pod| !pod.facts.deleting) {
        let Some(since) = old["disruptedPods"].get(pod.name()).and_then(|t| Time::parse(t.str())) else { continue };
        let end = since.plus(DELETION);
        if end >= now {
            disrupted.set(pod.name(), since);
            again = Some(again.map_or(end.since(now), |a| a.min(end.since(now))));
        }
    }
    let healthy = pods
        .iter()
        .filter(|pod| !pod.facts.deleting && pod.facts.ready.is_some() && disrupted.get(pod.name()).is_none());
    let healthy = healthy.count() as i64;
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let generation = budget["metadata"]["generation"].int();
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let mut status = value!({
        "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected, "disruptionsAllowed": allowed,
        "observedGeneration": generation, "conditions": (with_condition(old, state, reason, "", generation, now)),
    });
    if !disrupted.is_empty() {
        status.set("disruptedPods", disrupted);
    }
    (status, again)
}

/// Nothing may be evicted while it is not known what there is.
fn failed(budget: &Value, why: &str, now: Time) -> Value {
    let mut status = budget["status"].clone();
    for count in ["currentHealthy", "desiredHealthy", "expectedPods"] {
        status.set_default(count, 0);
    }
    status.set("disruptionsAllowed", 0);
    let generation = status["observedGeneration"].int();
    status.set("conditions", with_condition(&budget["status"], "False", "SyncFailed", why, generation, now));
    status
}

fn with_condition(status: &Value, state: &str, reason: &str, message: &str, generation: i64, now: Time) -> Value {
    const KIND: &str = "DisruptionAllowed";
    let before = condition(status, KIND);
    let since = if before["status"].str() == state { before["lastTransitionTime"].clone() } else { now.into() };
    let mut new =
        value!({"type": KIND, "status": state, "reason": reason, "message": message, "lastTransitionTime": since});
    if generation != 0 {
        new.set("observedGeneration", generation);
    }
    let others = status["conditions"].items().iter().filter(|c| c["type"].str() != KIND).cloned();
    others.chain([new]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Object> {
        let state = if ready { "True" } else { "False" };
        let pod = value!({"metadata": {"name": name, "namespace": "n"}, "status": {"conditions": [
            {"type": "Ready", "status": state, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        Arc::new(Object::from_value(pod, &[], 1))
    }

    #[test]
    fn budgets() {
        let now = Time::parse("2026-01-01T01:00:00Z").unwrap();
        let pods = [pod("a", true), pod("b", true), pod("c", true), pod("d", false)];
        let cases = [
            (value!({"minAvailable": 2}), [3, 2, 1]),
            (value!({"minAvailable": "60%"}), [3, 3, 0]),
            (value!({"maxUnavailable": 2}), [3, 2, 1]),
            (value!({"maxUnavailable": "30%"}), [3, 2, 1]),
            (value!({"maxUnavailable": 9}), [3, 0, 3]),
        ];
        for (spec, numbers) in cases {
            let budget = value!({"metadata": {"generation": 1}, "spec": (&spec)});
            let (status, again) = plan(&budget, &pods, 4, now);
            let found = ["currentHealthy", "desiredHealthy", "disruptionsAllowed"].map(|f| status[f].int());
            assert_eq!((found, again), (numbers, None), "{spec:?}");
            let state = if numbers[2] > 0 { "SufficientPods" } else { "InsufficientPods" };
            assert_eq!(condition(&status, "DisruptionAllowed")["reason"].str(), state);
        }
        assert_eq!(plan(&value!({"spec": {"minAvailable": 0}}), &[], 0, now).0["disruptionsAllowed"].int(), 0);
    }

    #[test]
    fn evicted_pods_are_not_healthy_for_a_while() {
        let now = Time::parse("2026-01-01T01:00:00Z").unwrap();
        let budget = value!({"spec": {"minAvailable": 1}, "status": {"disruptedPods": {
            "a": "2026-01-01T00:59:30Z", "b": "2026-01-01T00:50:00Z", "gone": "2026-01-01T00:59:59Z"}}});
        let (status, again) = plan(&budget, &[pod("a", true), pod("b", true)], 2, now);
        assert_eq!(status["disruptedPods"], value!({"a": "2026-01-01T00:59:30Z"}));
        assert_eq!((status["currentHealthy"].int(), again), (1, Some(Duration::from_secs(90))));
    }
}
