//! What controllers ask of pods, most of it answered by facts: parsing every pod of a large set at every pass would cost
//! more than all else together (upstream `pkg/api/v1/pod`, `pkg/controller/controller_utils.go`).

use canopus_api::{Object, Time, Value};
use std::time::Duration;

pub fn is_finished(pod: &Object) -> bool {
    matches!(pod.facts.field("status.phase"), Some("Succeeded" | "Failed"))
}

pub fn is_active(pod: &Object) -> bool {
    !is_finished(pod) && !pod.facts.deleting
}

/// Deleted, and not yet gone.
pub fn is_terminating(pod: &Object) -> bool {
    pod.facts.deleting && !is_finished(pod)
}

/// How long until the pod counts as available: zero when it does, None when it is not even ready.
pub fn available_in(pod: &Object, min_ready_seconds: i64, now: Time) -> Option<Duration> {
    let since = pod.facts.ready?;
    match u64::try_from(min_ready_seconds) {
        // Not even a clock that is ahead of ours matters.
        Ok(0) | Err(_) => Some(Duration::ZERO),
        Ok(seconds) => Some(since.plus(Duration::from_secs(seconds)).since(now)),
    }
}

pub fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"].items().iter().map(|c| c["restartCount"].int()).max().unwrap_or(0)
}

pub fn created(object: &Value) -> Time {
    Time::parse(object["metadata"]["creationTimestamp"].str()).unwrap_or_default()
}
