//! Resizing a deployment's ReplicaSets: the limits of a rolling update, and scaling in proportion.

use super::plan::Working;
use super::revision::{DESIRED, MAX};
use super::set::Set;
use canopus_api::Value;
use std::cmp::Reverse;

/// `(replicas, maxSurge, maxUnavailable)`; a surge and an unavailability that both round to zero would never get
/// anywhere, so one pod may then be unavailable.
pub(super) fn limits(deployment: &Value) -> (i64, i64, i64) {
    let spec = &deployment["spec"];
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    if spec["strategy"]["type"].str() == "Recreate" {
        return (replicas, 0, 0);
    }
    let rolling = &spec["strategy"]["rollingUpdate"];
    let surge = scaled(&rolling["maxSurge"], replicas, true);
    let unavailable = match (surge, scaled(&rolling["maxUnavailable"], replicas, false)) {
        (0, 0) => 1,
        (_, unavailable) => unavailable,
    };
    (replicas, surge, unavailable.min(replicas))
}

/// A number, or a percentage of `total`.
fn scaled(value: &Value, total: i64, up: bool) -> i64 {
    let Some(percent) = value.as_str().and_then(|s| s.strip_suffix('%')).and_then(|s| s.parse::<i64>().ok()) else {
        return value.int().max(0);
    };
    let hundredths = percent.max(0).saturating_mul(total);
    if up { hundredths.saturating_add(99) / 100 } else { hundredths / 100 }
}

/// Resizes one set, notes for which size of the deployment, and tells of it.
pub(super) fn resize(events: &mut Vec<String>, set: &mut Set, size: i64, replicas: i64, max: i64) {
    let (before, name) = (set.replicas, set.name().to_string());
    set.annotate(DESIRED, &replicas.to_string());
    set.annotate(MAX, &max.to_string());
    set.resize(size);
    if before != size {
        let direction = if before < size { "up" } else { "down" };
        events.push(format!("Scaled {direction} replica set {name} from {before} to {size}"));
    }
}

/// Follows a change of `spec.replicas`, or a pause: no version gains on another.
pub(super) fn scale(working: &mut Working) {
    let (replicas, max) = (working.replicas, working.replicas + working.max_surge);
    if let Some(only) = active_or_latest(working) {
        if working_set(working, only).replicas != replicas {
            resize_at(working, only, replicas);
        }
        return;
    }
    let saturated = working.new.as_ref().is_some_and(|new| {
        new.replicas == replicas && new.desired() == Some(replicas) && new.status("availableReplicas") == replicas
    });
    if saturated {
        for set in working.old.iter_mut().filter(|set| set.replicas > 0) {
            resize(&mut working.plan.events, set, 0, replicas, max);
        }
    } else if working.is_rolling() {
        proportionally(working);
    }
}

/// Position of a set: the new one comes after the old ones.
fn working_set<'a>(working: &'a Working, at: usize) -> &'a Set {
    match working.old.get(at) {
        Some(set) => set,
        None => working.new.as_ref().expect("positions are of sets that exist"),
    }
}

fn resize_at(working: &mut Working, at: usize, size: i64) {
    let (replicas, max) = (working.replicas, working.replicas + working.max_surge);
    let set = match at < working.old.len() {
        true => working.old.get_mut(at),
        false => working.new.as_mut(),
    };
    if let Some(set) = set {
        resize(&mut working.plan.events, set, size, replicas, max);
    }
}

fn active(working: &Working) -> Vec<usize> {
    working.sets().enumerate().filter(|(_, set)| set.replicas > 0).map(|(at, _)| at).collect()
}

/// The only set with pods, or the newest if none has any; None when several have.
fn active_or_latest(working: &Working) -> Option<usize> {
    match active(working).as_slice() {
        [] if working.new.is_some() => Some(working.old.len()),
        [] => (0..working.old.len()).max_by_key(|at| working.old[*at].created()),
        [only] => Some(*only),
        _ => None,
    }
}

fn proportionally(working: &mut Working) {
    let replicas = working.replicas;
    let allowed = if replicas > 0 { replicas + working.max_surge } else { 0 };
    let to_add = allowed - working.total();
    let mut order = active(working);
    // The largest first; of equals the newest grows first, the oldest shrinks first.
    order.sort_by_key(|at| {
        let set = working_set(working, *at);
        let age = set.created().0;
        (Reverse(set.replicas), if to_add > 0 { -age } else { age })
    });
    let mut added = 0;
    let mut sizes = Vec::new();
    for at in order {
        let share = share(working, working_set(working, at), to_add, added);
        added += share;
        sizes.push((at, working_set(working, at).replicas + share));
    }
    if let Some((_, largest)) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (at, size) in sizes {
        resize_at(working, at, size);
    }
}

/// A set's part of the replicas to add (or, negative, to take away).
fn share(working: &Working, set: &Set, to_add: i64, added: i64) -> i64 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let fraction = fraction(working, set);
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(working: &Working, set: &Set) -> i64 {
    if working.replicas == 0 {
        return -set.replicas;
    }
    let before = set.max().filter(|max| *max > 0).unwrap_or_else(|| working.deployment["status"]["replicas"].int());
    if before == 0 {
        return 0;
    }
    // To the nearest integer, halves up, in integers.
    let scaled = set.replicas.saturating_mul(working.replicas + working.max_surge);
    (scaled.saturating_mul(2) + before) / (before * 2) - set.replicas
}
