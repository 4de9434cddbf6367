//! What a ReplicaSet's pass does and reports.

use super::rank;
use crate::context::{condition, controller_ref};
use crate::pods;
use canopus_api::{LabelSelector, Object, Time, Value, value};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Observed<'a> {
    pub set: &'a Value,
    /// All pods the set controls, finished and terminating ones too.
    pub pods: &'a [Arc<Object>],
    /// Pods of the sets under the same owner; asked only if some are to go.
    pub related: &'a (dyn Fn() -> Vec<Arc<Object>> + Sync),
    pub now: Time,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Object>>,
    /// When the next pod becomes available by age alone.
    pub look_again: Option<Duration>,
}

impl Observed<'_> {
    fn active(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.pods.iter().filter(|pod| pods::is_active(pod))
    }

    fn min_ready(&self) -> i64 {
        self.set["spec"]["minReadySeconds"].int()
    }
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let wanted = usize::try_from(observed.set["spec"]["replicas"].int()).unwrap_or(0);
    let active = observed.active().count();
    let delete = match active.saturating_sub(wanted) {
        0 => Vec::new(),
        surplus => {
            let order = rank::deletion_order(observed.active(), &(observed.related)(), observed.now);
            order.into_iter().take(surplus).collect()
        }
    };
    let waits = observed.active().filter_map(|pod| pods::available_in(pod, observed.min_ready(), observed.now));
    let look_again = waits.filter(|wait| !wait.is_zero()).min();
    Plan { create: wanted.saturating_sub(active), delete, look_again }
}

/// The pod that the set's template describes.
pub(super) fn pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let mut meta = value!({
        "generateName": format!("{}-", set["metadata"]["name"].str()), "namespace": &set["metadata"]["namespace"],
        "ownerReferences": [controller_ref(set)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_empty() {
            meta.set(field, &template["metadata"][field]);
        }
    }
    value!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": &template["spec"]})
}

/// The set's status; `failure` is why pods could not be created or deleted.
pub(super) fn status(observed: &Observed, failure: Option<&str>) -> Value {
    let set = observed.set;
    let template = LabelSelector::from_map(&set["spec"]["template"]["metadata"]["labels"]);
    let (mut active, mut labelled, mut ready, mut available) = (0, 0, 0, 0);
    for pod in observed.active() {
        active += 1;
        labelled += usize::from(template.matches(&pod.facts));
        ready += usize::from(pod.facts.ready.is_some());
        let wait = pods::available_in(pod, observed.min_ready(), observed.now);
        available += usize::from(wait.is_some_and(|wait| wait.is_zero()));
    }
    let mut status = value!({"replicas": active, "observedGeneration": &set["metadata"]["generation"]});
    let counts = [("fullyLabeledReplicas", labelled), ("readyReplicas", ready), ("availableReplicas", available)];
    for (field, n) in counts.into_iter().filter(|(_, n)| *n > 0) {
        status.set(field, n);
    }
    if set["kind"].str() == "ReplicaSet" {
        let terminating = observed.pods.iter().filter(|pod| pod.facts.deleting && !pods::is_finished(pod)).count();
        status.set("terminatingReplicas", terminating);
    }
    let conditions = conditions(observed, active, failure);
    if !conditions.is_empty() {
        status.set("conditions", conditions);
    }
    status
}

fn conditions(observed: &Observed, active: usize, failure: Option<&str>) -> Vec<Value> {
    let old = &observed.set["status"];
    let others = old["conditions"].items().iter().filter(|c| c["type"].str() != "ReplicaFailure");
    let mut conditions: Vec<Value> = others.cloned().collect();
    let existing = condition(old, "ReplicaFailure");
    match failure {
        Some(_) if !existing.is_null() => conditions.push(existing.clone()),
        Some(message) => {
            let short = i64::try_from(active).unwrap_or(i64::MAX) < observed.set["spec"]["replicas"].int();
            conditions.push(value!({
                "type": "ReplicaFailure", "status": "True", "lastTransitionTime": observed.now,
                "reason": if short { "FailedCreate" } else { "FailedDelete" }, "message": message,
            }));
        }
        None => {}
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64) -> Value {
        value!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": 10, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        })
    }

    fn running(name: &str, ready_at: Option<i64>) -> Arc<Object> {
        let mut pod = value!({
            "metadata": {"name": name, "labels": {"app": "web"}, "uid": name}, "spec": {"nodeName": "n"},
            "status": {"phase": "Running"},
        });
        if let Some(at) = ready_at {
            let ready = value!({"type": "Ready", "status": "True", "lastTransitionTime": Time::from_unix(at)});
            pod.set_path(&["status", "conditions"], vec![ready]);
        }
        Arc::new(Object::from_value(pod, &["spec.nodeName", "status.phase"], 1))
    }

    #[test]
    fn creates_what_is_missing_and_deletes_the_unready_first() {
        let pods = [running("old", Some(0)), running("unready", None), running("young", Some(95))];
        let now = Time::from_unix(100);
        let table = [(5, 2, vec![]), (3, 0, vec![]), (1, 0, vec!["unready", "young"])];
        for (replicas, create, delete) in table {
            let set = set(replicas);
            let plan = plan(&Observed { set: &set, pods: &pods, related: &Vec::new, now });
            let deleted: Vec<&str> = plan.delete.iter().map(|p| p.name()).collect();
            assert_eq!((plan.create, deleted), (create, delete), "{replicas}");
            assert_eq!(plan.look_again, Some(Duration::from_secs(5)));
        }
    }

    #[test]
    fn status_counts_and_failures() {
        let set = set(4);
        let pods = [running("old", Some(0)), running("unready", None), running("young", Some(95))];
        let observed = Observed { set: &set, pods: &pods, related: &Vec::new, now: Time::from_unix(100) };
        let status = status(&observed, Some("quota"));
        let expected = value!({
            "replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 2, "availableReplicas": 1,
            "terminatingReplicas": 0, "observedGeneration": 3,
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota",
                "lastTransitionTime": "1970-01-01T00:01:40Z"}],
        });
        assert_eq!(status, expected);
    }
}
