//! Which pods go first when there are too many (upstream `controller.ActivePodsWithRanks`).

use crate::pods;
use canopus_api::{Object, Time, Value};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// `active` with the pod to delete first in front: unassigned, pending, unready, cheap, on a node crowded with
/// `related` pods, ready for a short time, often restarted, young.
pub(super) fn deletion_order<'a>(
    active: impl Iterator<Item = &'a Arc<Object>>,
    related: &[Arc<Object>],
    now: Time,
) -> Vec<Arc<Object>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *crowd.entry(node(pod)).or_default() += 1;
    }
    let mut active: Vec<Arc<Object>> = active.cloned().collect();
    active.sort_by_cached_key(|pod| {
        let phase = match pod.facts.field("status.phase") {
            Some("Pending") => 0,
            Some("Unknown") => 1,
            _ => 2,
        };
        let value = pod.value();
        (
            !node(pod).is_empty(),
            phase,
            pod.facts.ready.is_some(),
            deletion_cost(&value),
            Reverse(crowd.get(node(pod)).copied().unwrap_or(0)),
            pod.facts.ready.map_or(-1, |at| age_class(at, now)),
            Reverse(pods::restarts(&value)),
            age_class(pods::created(&value), now),
            pod.facts.uid.clone(),
        )
    });
    active
}

fn node(pod: &Object) -> &str {
    pod.facts.field("spec.nodeName").unwrap_or_default()
}

fn deletion_cost(pod: &Value) -> i64 {
    pod["metadata"]["annotations"][DELETION_COST].str().parse().unwrap_or(0)
}

/// Ages count by powers of two, so that pods of a similar age are picked from at random, by uid.
fn age_class(at: Time, now: Time) -> i64 {
    match now.since(at).as_nanos() {
        0 => -1,
        nanos => i64::from(nanos.ilog2()),
    }
}
