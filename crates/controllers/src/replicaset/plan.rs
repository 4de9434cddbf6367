//! What a ReplicaSet's pass does and reports.

use super::rank;
use crate::context::{condition, controller_ref};
use crate::pods;
use canopus_api::{LabelSelector, Object, Time, Value, value};
use std::sync::Arc;
use std::time::Duration;

/// A set's pods in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Neither finished nor being deleted; the next three are some of these.
    pub active: usize,
    pub labelled: usize,
    pub ready: usize,
    pub available: usize,
    pub terminating: usize,
    /// When the next pod becomes available by age alone.
    pub look_again: Option<Duration>,
}

impl Counts {
    /// Of all pods that the set controls, finished and terminating ones too.
    pub(super) fn of(pods: &[Arc<Object>], set: &Value, now: Time) -> Counts {
        let template = template(set);
        let mut counts = Counts::default();
        for pod in pods {
            counts.terminating += usize::from(pods::is_terminating(pod));
            if !pods::is_active(pod) {
                continue;
            }
            counts.active += 1;
            counts.labelled += usize::from(template.matches(&pod.facts));
            counts.ready += usize::from(pod.facts.ready.is_some());
            match pods::available_in(pod, min_ready_seconds(set), now) {
                None => {}
                Some(Duration::ZERO) => counts.available += 1,
                Some(wait) => counts.look_again = Some(counts.look_again.map_or(wait, |least| least.min(wait))),
            }
        }
        counts
    }

    pub(super) fn missing(&self, set: &Value) -> usize {
        wanted(set).saturating_sub(self.active)
    }

    pub(super) fn surplus(&self, set: &Value) -> usize {
        self.active.saturating_sub(wanted(set))
    }
}

fn wanted(set: &Value) -> usize {
    usize::try_from(set["spec"]["replicas"].int()).unwrap_or(0)
}

pub(super) fn min_ready_seconds(set: &Value) -> i64 {
    set["spec"]["minReadySeconds"].int()
}

/// What the pods made of the set's template match.
pub(super) fn template(set: &Value) -> LabelSelector {
    LabelSelector::from_map(&set["spec"]["template"]["metadata"]["labels"])
}

/// The `surplus` pods that go first; `related` are those of the sets under the same owner.
pub(super) fn surplus(
    pods: &[Arc<Object>],
    surplus: usize,
    related: impl FnOnce() -> Vec<Arc<Object>>,
    now: Time,
) -> Vec<Arc<Object>> {
    if surplus == 0 {
        return Vec::new();
    }
    let active = pods.iter().filter(|pod| pods::is_active(pod));
    rank::deletion_order(active, &related(), now).into_iter().take(surplus).collect()
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
pub(super) fn status(set: &Value, counts: &Counts, failure: Option<&str>, now: Time) -> Value {
    let mut status = value!({"replicas": counts.active, "observedGeneration": &set["metadata"]["generation"]});
    let numbers = [
        ("fullyLabeledReplicas", counts.labelled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ];
    for (field, n) in numbers.into_iter().filter(|(_, n)| *n > 0) {
        status.set(field, n);
    }
    if set["kind"].str() == "ReplicaSet" {
        status.set("terminatingReplicas", counts.terminating);
    }
    let conditions = conditions(set, counts.active, failure, now);
    if !conditions.is_empty() {
        status.set("conditions", conditions);
    }
    status
}

fn conditions(set: &Value, active: usize, failure: Option<&str>, now: Time) -> Vec<Value> {
    let old = &set["status"];
    let others = old["conditions"].items().iter().filter(|c| c["type"].str() != "ReplicaFailure");
    let mut conditions: Vec<Value> = others.cloned().collect();
    let existing = condition(old, "ReplicaFailure");
    match failure {
        Some(_) if !existing.is_null() => conditions.push(existing.clone()),
        Some(message) => conditions.push(value!({
            "type": "ReplicaFailure", "status": "True", "lastTransitionTime": now,
            "reason": if active < wanted(set) { "FailedCreate" } else { "FailedDelete" }, "message": message,
        })),
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
            let counts = Counts::of(&pods, &set, now);
            let surplus = surplus(&pods, counts.surplus(&set), Vec::new, now);
            let deleted: Vec<&str> = surplus.iter().map(|p| p.name()).collect();
            assert_eq!((counts.missing(&set), deleted), (create, delete), "{replicas}");
            assert_eq!(counts.look_again, Some(Duration::from_secs(5)));
        }
    }

    #[test]
    fn status_counts_and_failures() {
        let set = set(4);
        let pods = [running("old", Some(0)), running("unready", None), running("young", Some(95))];
        let now = Time::from_unix(100);
        let status = status(&set, &Counts::of(&pods, &set, now), Some("quota"), now);
        let expected = value!({
            "replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 2, "availableReplicas": 1,
            "terminatingReplicas": 0, "observedGeneration": 3,
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota",
                "lastTransitionTime": "1970-01-01T00:01:40Z"}],
        });
        assert_eq!(status, expected);
    }
}
