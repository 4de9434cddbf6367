//! The two strategies. Both answer whether they found nothing left to scale.

use super::plan::{Observed, Working};
use super::revision;
use super::scale::resize;
use super::set::Set;

/// Adds new pods as far as maxSurge goes and takes old ones away as far as maxUnavailable goes.
pub(super) fn rolling(working: &mut Working) -> bool {
    let room = working.replicas + working.max_surge - working.total();
    let (replicas, max) = (working.replicas, working.replicas + working.max_surge);
    let Some(new) = &mut working.new else {
        create(working, room.clamp(0, replicas));
        return false;
    };
    let size = match new.replicas {
        current if current >= replicas => replicas,
        current => current + room.clamp(0, replicas - current),
    };
    if size != new.replicas {
        resize(&mut working.plan.events, new, size, replicas, max);
        return false;
    }
    !shrink_old(working)
}

fn create(working: &mut Working, replicas: i64) {
    let set = revision::make(working, replicas);
    if replicas > 0 {
        let name = set["metadata"]["name"].str();
        working.plan.events.push(format!("Scaled up replica set {name} from 0 to {replicas}"));
    }
    working.plan.create = Some(set);
}

/// Takes away old pods: unhealthy ones first, which costs no availability; true when it did.
fn shrink_old(working: &mut Working) -> bool {
    let (replicas, max) = (working.replicas, working.replicas + working.max_surge);
    let min_available = replicas - working.max_unavailable;
    let new_unavailable = working.new.as_ref().map_or(0, |new| new.replicas - new.status("availableReplicas"));
    let mut unhealthy = working.total() - min_available - new_unavailable;
    if unhealthy <= 0 || working.old.iter().all(|set| set.replicas == 0) {
        return false;
    }
    // A set that shrinks still counts the pods it is about to delete: they keep nothing available. Upstream counts them,
    // and goes below the minimum when a set's status comes late.
    let lasting = |set: &Set| set.status("availableReplicas").min(set.replicas);
    let mut surplus = working.sets().map(lasting).sum::<i64>() - min_available;
    working.old.sort_by_key(|set| set.created());
    let mut sizes: Vec<i64> = working.old.iter().map(|set| set.replicas).collect();
    for (size, set) in sizes.iter_mut().zip(&working.old) {
        let fewer = (*size - set.status("availableReplicas")).clamp(0, unhealthy);
        *size -= fewer;
        unhealthy -= fewer;
    }
    for size in &mut sizes {
        let fewer = (*size).min(surplus.max(0));
        *size -= fewer;
        surplus -= fewer;
    }
    let mut shrunk = false;
    for (size, set) in sizes.into_iter().zip(&mut working.old) {
        if size != set.replicas {
            resize(&mut working.plan.events, set, size, replicas, max);
            shrunk = true;
        }
    }
    shrunk
}

/// Takes all old pods away, waits until they are gone, then starts the new ones.
pub(super) fn recreate(working: &mut Working, observed: &Observed) -> bool {
    let replicas = working.replicas;
    let mut shrunk = false;
    for set in working.old.iter_mut().filter(|set| set.replicas > 0) {
        resize(&mut working.plan.events, set, 0, replicas, replicas);
        shrunk = true;
    }
    let busy = |uid: &str| observed.busy.contains(uid);
    let running = working.old.iter().any(|s| s.status("replicas") > 0 || busy(s.value["metadata"]["uid"].str()));
    if shrunk || running {
        return false;
    }
    match &mut working.new {
        None => {
            create(working, replicas);
            false
        }
        Some(new) if new.replicas != replicas => {
            resize(&mut working.plan.events, new, replicas, replicas, replicas);
            true
        }
        Some(_) => true,
    }
}
