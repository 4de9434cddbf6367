//! What controllers ask of pods (upstream `pkg/api/v1/pod`, `pkg/controller/controller_utils.go`).

use crate::context::condition;
use canopus_api::{Time, Value};
use std::time::Duration;

pub fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

pub fn is_finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].str(), "Succeeded" | "Failed")
}

pub fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

pub fn is_ready(pod: &Value) -> bool {
    condition(&pod["status"], "Ready")["status"].str() == "True"
}

/// Since when the pod is ready; None when it isn't.
pub fn ready_since(pod: &Value) -> Option<Time> {
    let ready = condition(&pod["status"], "Ready");
    (ready["status"].str() == "True").then(|| Time::parse(ready["lastTransitionTime"].str())).flatten()
}

/// How long until the pod counts as available: zero when it does, None when it is not even ready.
pub fn available_in(pod: &Value, min_ready_seconds: i64, now: Time) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let ripe = ready_since(pod)?.plus(Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0)));
    Some(ripe.since(now))
}

pub fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"].items().iter().map(|c| c["restartCount"].int()).max().unwrap_or(0)
}

pub fn created(object: &Value) -> Time {
    Time::parse(object["metadata"]["creationTimestamp"].str()).unwrap_or_default()
}
