//! Which pods go first when there are too many (upstream `controller.ActivePodsWithRanks`).

use crate::pods;
use canopus_api::{Time, Value};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// `active` with the pod to delete first in front: unassigned, pending, unready, cheap, on a node crowded with
/// `related` pods, ready for a short time, often restarted, young.
pub(super) fn deletion_order(active: Vec<Arc<Value>>, related: &[Arc<Value>], now: Time) -> Vec<Arc<Value>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *crowd.entry(pod["spec"]["nodeName"].str()).or_default() += 1;
    }
    let mut active = active;
    active.sort_by_cached_key(|pod| {
        let node = pod["spec"]["nodeName"].str();
        let phase = match pod["status"]["phase"].str() {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        (
            !node.is_empty(),
            phase,
            pods::is_ready(pod),
            deletion_cost(pod),
            Reverse(crowd.get(node).copied().unwrap_or(0)),
            pods::ready_since(pod).map_or(-1, |at| age_class(at, now)),
            Reverse(pods::restarts(pod)),
            age_class(pods::created(pod), now),
            pod["metadata"]["uid"].str().to_string(),
        )
    });
    active
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
