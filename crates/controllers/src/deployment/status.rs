//! A deployment's status: counts and the conditions that `kubectl rollout status` reads.

use super::plan::Working;
use super::set::Set;
use crate::context::condition;
use canopus_api::{Time, Value, value};
use std::time::Duration;

const PROGRESSING: &str = "Progressing";

/// An absent or huge deadline means: don't watch progress.
fn deadline(deployment: &Value) -> Option<i64> {
    deployment["spec"]["progressDeadlineSeconds"].as_i64().filter(|seconds| *seconds != i64::from(i32::MAX))
}

fn make(kind: &str, state: &str, reason: &str, message: &str, now: Time) -> Value {
    value!({
        "type": kind, "status": state, "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now,
    })
}

/// Sets a condition unless status and reason are the same; the transition time changes only with the status.
fn set(status: &mut Value, mut new: Value) {
    let current = condition(status, new["type"].str());
    if current["status"] == new["status"] && current["reason"] == new["reason"] {
        return;
    }
    if current["status"] == new["status"] {
        new.set("lastTransitionTime", &current["lastTransitionTime"]);
    }
    remove(status, new["type"].str());
    status.obj_mut_array("conditions").push(new);
}

fn remove(status: &mut Value, kind: &str) {
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|c| c["type"].str() != kind);
        if conditions.is_empty() {
            status.remove("conditions");
        }
    }
}

trait Arrays {
    fn obj_mut_array(&mut self, key: &str) -> &mut Vec<Value>;
}

impl Arrays for Value {
    fn obj_mut_array(&mut self, key: &str) -> &mut Vec<Value> {
        self.ensure_object().entry(key, || Value::Array(Vec::new())).ensure_array()
    }
}

/// So that the time spent paused doesn't count as lack of progress.
pub(super) fn paused(deployment: &Value, status: &mut Value, now: Time) {
    let reason = condition(status, PROGRESSING)["reason"].str();
    if deadline(deployment).is_none() || reason == "ProgressDeadlineExceeded" {
        return;
    }
    match (deployment["spec"]["paused"].bool(), reason == "DeploymentPaused") {
        (true, false) => set(status, make(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", now)),
        (false, true) => set(status, make(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now)),
        _ => {}
    }
}

pub(super) fn found(deployment: &Value, status: &mut Value, name: &str, now: Time) {
    if deadline(deployment).is_some() && condition(status, PROGRESSING).is_null() {
        let message = format!("Found new replica set \"{name}\"");
        set(status, make(PROGRESSING, "True", "FoundNewReplicaSet", &message, now));
    }
}

pub(super) fn created(deployment: &Value, status: &mut Value, name: &str, now: Time) {
    if deadline(deployment).is_some() {
        let message = format!("Created new replica set \"{name}\"");
        set(status, make(PROGRESSING, "True", "NewReplicaSetCreated", &message, now));
    }
}

/// False when progress isn't watched.
pub(super) fn failed_create(deployment: &Value, status: &mut Value, message: &str, now: Time) -> bool {
    let watched = deadline(deployment).is_some();
    if watched {
        set(status, make(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    }
    watched
}

pub(super) fn is_complete(working: &Working, status: &Value) -> bool {
    let wanted = working.replicas;
    ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|count| status[*count].int() == wanted)
        && status["observedGeneration"].int() >= working.deployment["metadata"]["generation"].int()
}

/// The whole status; `old` holds the conditions so far, `rolling_out` says whether progress is to be judged.
pub(super) fn calculate(working: &Working, old: &Value, rolling_out: bool, now: Time) -> Value {
    let sum = |count: &str| working.sets().map(|set| set.status(count)).sum::<i64>();
    let available = sum("availableReplicas");
    let counts = [
        ("replicas", sum("replicas")),
        ("updatedReplicas", working.new.as_ref().map_or(0, |new| new.status("replicas"))),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (working.total() - available).max(0)),
    ];
    let mut status = value!({"observedGeneration": &working.deployment["metadata"]["generation"]});
    for (field, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        status.set(field, count);
    }
    if working.sets().all(|set| !set.value["status"]["terminatingReplicas"].is_null()) {
        status.set("terminatingReplicas", sum("terminatingReplicas"));
    }
    for field in ["collisionCount", "conditions"] {
        if let Some(kept) = old.get(field).filter(|v| !v.is_null()) {
            status.set(field, kept);
        }
    }
    let enough = available >= working.replicas - working.max_unavailable;
    set(
        &mut status,
        match enough {
            true => make("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now),
            false => {
                let message = "Deployment does not have minimum availability.";
                make("Available", "False", "MinimumReplicasUnavailable", message, now)
            }
        },
    );
    if rolling_out {
        progress(working, &mut status, now);
        failures(working, &mut status);
    }
    status
}

fn progress(working: &Working, status: &mut Value, now: Time) {
    let Some(deadline) = deadline(working.deployment) else {
        return remove(status, PROGRESSING);
    };
    let current = condition(status, PROGRESSING).clone();
    let reason = current["reason"].str();
    if status["replicas"].int() == status["updatedReplicas"].int() && reason == "NewReplicaSetAvailable" {
        return;
    }
    let subject = match &working.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", working.deployment["metadata"]["name"].str()),
    };
    if is_complete(working, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, make(PROGRESSING, "True", "NewReplicaSetAvailable", &message, now));
    } else if progressed(&working.deployment["status"], status) {
        let message = format!("{subject} is progressing.");
        let mut condition = make(PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
        if current["status"].str() == "True" {
            condition.set("lastTransitionTime", &current["lastTransitionTime"]);
        }
        // Same reason, newer lastUpdateTime: that is what the deadline counts from.
        remove(status, PROGRESSING);
        set(status, condition);
    } else if timed_out(&current, deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        set(status, make(PROGRESSING, "False", "ProgressDeadlineExceeded", &message, now));
    }
}

/// More new pods, fewer old ones, or more that are ready or available.
fn progressed(old: &Value, new: &Value) -> bool {
    let more = |count: &str| new[count].int() > old[count].int();
    let outdated = |status: &Value| status["replicas"].int() - status["updatedReplicas"].int();
    more("updatedReplicas") || more("readyReplicas") || more("availableReplicas") || outdated(new) < outdated(old)
}

fn timed_out(current: &Value, deadline: i64, now: Time) -> bool {
    match current["reason"].str() {
        "" | "NewReplicaSetAvailable" => false,
        "ProgressDeadlineExceeded" => true,
        _ => Time::parse(current["lastUpdateTime"].str()).is_some_and(|at| at.plus(seconds(deadline)) < now),
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Tells of a ReplicaSet that can't create its pods; the new one's failure comes first.
fn failures(working: &Working, status: &mut Value) {
    let failure = |set: &Set| Some(condition(&set.value["status"], "ReplicaFailure").clone()).filter(|c| !c.is_null());
    match working.new.iter().chain(&working.old).find_map(failure) {
        Some(mut failure) => {
            let since = failure["lastTransitionTime"].clone();
            failure.set("lastUpdateTime", since);
            set(status, failure);
        }
        None => remove(status, "ReplicaFailure"),
    }
}

/// When the deadline is to be checked.
pub(super) fn look_again(working: &Working, now: Time) -> Option<Duration> {
    let status = &working.plan.status;
    let deadline = deadline(working.deployment)?;
    let current = condition(status, PROGRESSING);
    if is_complete(working, status) || current["reason"].str() == "ProgressDeadlineExceeded" {
        return None;
    }
    let updated = Time::parse(current["lastUpdateTime"].str())?;
    Some(updated.plus(seconds(deadline)).since(now) + Duration::from_secs(1))
}
