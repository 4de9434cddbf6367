//! One pass over a deployment: which ReplicaSets to create, resize and delete, and what its status says.

use super::set::Set;
use super::{revision, rollout, scale, status};
use canopus_api::{Time, Value};
use compact_str::CompactString;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Observed<'a> {
    pub deployment: &'a Value,
    pub sets: &'a [Arc<Value>],
    /// Uids of the sets that have pods which have not finished, terminating ones too.
    pub busy: &'a BTreeSet<CompactString>,
    pub now: Time,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Option<Value>,
    pub update: Vec<Value>,
    pub delete: Vec<Value>,
    /// Messages of ScalingReplicaSet Events.
    pub events: Vec<String>,
    /// The deployment's revision annotation.
    pub revision: Option<String>,
    pub status: Value,
    pub look_again: Option<Duration>,
}

/// What the steps of a pass work on.
pub(super) struct Working<'a> {
    pub deployment: &'a Value,
    pub replicas: i64,
    pub max_surge: i64,
    pub max_unavailable: i64,
    pub new: Option<Set>,
    pub old: Vec<Set>,
    pub plan: Plan,
}

impl Working<'_> {
    pub fn sets(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    pub fn total(&self) -> i64 {
        self.sets().map(|set| set.replicas).sum()
    }

    pub fn is_rolling(&self) -> bool {
        self.deployment["spec"]["strategy"]["type"].str() != "Recreate"
    }
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let deployment = observed.deployment;
    let mut old: Vec<Set> = observed.sets.iter().map(Set::new).collect();
    let new = revision::find_new(deployment, &mut old);
    let (replicas, max_surge, max_unavailable) = scale::limits(deployment);
    let plan = Plan::default();
    let mut working = Working { deployment, replicas, max_surge, max_unavailable, new, old, plan };
    let mut status = deployment["status"].clone();
    if deployment["metadata"]["deletionTimestamp"].is_null() {
        status::paused(deployment, &mut status, observed.now);
        let next = revision::next(&working.old);
        if let Some(new) = &mut working.new {
            revision::sync(deployment, new, next);
            status::found(deployment, &mut status, new.name(), observed.now);
        }
        let rolling_out = steps(&mut working, observed);
        working.plan.status = status::calculate(&working, &status, rolling_out, observed.now);
        working.plan.look_again = status::look_again(&working, observed.now).filter(|_| rolling_out);
    } else {
        working.plan.status = status::calculate(&working, &status, false, observed.now);
    }
    finish(working)
}

/// Scales and cleans up; true when this is a rollout, whose progress is then watched.
fn steps(working: &mut Working, observed: &Observed) -> bool {
    let paused = working.deployment["spec"]["paused"].bool();
    let active = working.sets().filter(|set| set.replicas > 0);
    let resized = active.filter_map(Set::desired).any(|desired| desired != working.replicas);
    if paused || resized {
        scale::scale(working);
        if paused {
            clean_up(working);
        }
        return false;
    }
    let settled = if working.is_rolling() { rollout::rolling(working) } else { rollout::recreate(working, observed) };
    if settled && status::is_complete(working, &working.deployment["status"]) {
        clean_up(working);
    }
    true
}

/// Deletes the oldest empty sets beyond the history limit.
fn clean_up(working: &mut Working) {
    let Some(limit) = working.deployment["spec"]["revisionHistoryLimit"].as_i64() else {
        return;
    };
    let alive = working.old.iter().filter(|set| set.value["metadata"]["deletionTimestamp"].is_null());
    let mut alive: Vec<&Set> = alive.collect();
    alive.sort_by_key(|set| revision::number(set));
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let empty = |set: &&Set| {
        let observed = set.status("observedGeneration") >= set.value["metadata"]["generation"].int();
        set.replicas == 0 && set.status("replicas") == 0 && observed && !set.changed
    };
    let delete = alive.into_iter().take(surplus).filter(empty).map(|set| Value::from(&*set.value)).collect();
    working.plan.delete = delete;
}

fn finish(working: Working) -> Plan {
    let Working { new, old, mut plan, .. } = working;
    if let Some(new) = &new {
        plan.revision = new.annotation(revision::REVISION).map(str::to_string);
    } else if let Some(created) = &plan.create {
        plan.revision = Some(created["metadata"]["annotations"][revision::REVISION].str().to_string());
    }
    let changed = old.into_iter().chain(new).filter(|set| set.changed);
    plan.update = changed.map(|set| Value::from(&*set.value)).collect();
    plan
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
