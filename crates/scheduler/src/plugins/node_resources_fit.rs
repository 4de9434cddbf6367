//! Keeps pods off nodes that lack what they request; prefers nodes with more left (LeastAllocated).

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, Filter, MAX_NODE_SCORE, Normalize, Plugin, Reason, Score, Verdict};
use crate::node::{Node, NodeInfo};
use crate::pod::Pod;
use crate::resources::Resources;

pub struct NodeResourcesFit;

/// What of `wanted` a node with these resources lacks.
fn lacks(wanted: &Resources, allocatable: &Resources, requested: &Resources, free_slot: bool) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !free_slot {
        reasons.push(Reason::Borrowed("Too many pods"));
    }
    let mut need = |amount: i64, total: i64, taken: i64, name: &'static str| {
        if amount > 0 && amount > total - taken {
            reasons.push(Reason::Borrowed(name));
        }
    };
    need(wanted.milli_cpu, allocatable.milli_cpu, requested.milli_cpu, "Insufficient cpu");
    need(wanted.memory, allocatable.memory, requested.memory, "Insufficient memory");
    let storage = (allocatable.ephemeral_storage, requested.ephemeral_storage);
    need(wanted.ephemeral_storage, storage.0, storage.1, "Insufficient ephemeral-storage");
    for (name, amount) in &wanted.others {
        if *amount > 0 && *amount > allocatable.other(name) - requested.other(name) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    reasons
}

/// Whether the pod would fit if the node were empty.
fn fits_empty(pod: &Pod, node: &Node) -> bool {
    lacks(&pod.requests.exact, &node.allocatable, &Resources::default(), node.allowed_pods > 0).is_empty()
}

/// Whether `new` has more of anything that the pod wants.
fn has_more(pod: &Pod, old: &Node, new: &Node) -> bool {
    let wanted = &pod.requests.exact;
    let (before, after) = (&old.allocatable, &new.allocatable);
    new.allowed_pods > old.allowed_pods
        || wanted.milli_cpu > 0 && after.milli_cpu > before.milli_cpu
        || wanted.memory > 0 && after.memory > before.memory
        || wanted.ephemeral_storage > 0 && after.ephemeral_storage > before.ephemeral_storage
        || wanted.others.iter().any(|(name, amount)| *amount > 0 && after.other(name) > before.other(name))
}

/// 100 for an empty node, 0 for a full one.
fn least_allocated(info: &NodeInfo, pod: &Pod) -> i64 {
    let part = |total: i64, taken: i64| match total {
        0 => None,
        _ if taken > total => Some(0),
        _ => Some((total - taken) * MAX_NODE_SCORE / total),
    };
    let (cpu, memory) = (info.non_zero.0 + pod.requests.non_zero.0, info.non_zero.1 + pod.requests.non_zero.1);
    let parts = [part(info.node.allocatable.milli_cpu, cpu), part(info.node.allocatable.memory, memory)];
    let count = parts.iter().flatten().count() as i64;
    if count == 0 { 0 } else { parts.iter().flatten().sum::<i64>() / count }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, pod: &'a Pod) -> Filter<'a> {
        Filter::Check(Box::new(|info| {
            let free_slot = info.pods < info.node.allowed_pods;
            let reasons = lacks(&pod.requests.exact, &info.node.allocatable, &info.requested, free_slot);
            if reasons.is_empty() { Verdict::Fits } else { Verdict::Rejected(reasons) }
        }))
    }

    fn score<'a>(&self, pod: &'a Pod, _nodes: &'a Snapshot) -> Option<Score<'a>> {
        Some(Score { of: Box::new(|info| least_allocated(info, pod)), normalize: Normalize::None })
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => fits_empty(pod, node),
            ClusterEvent::NodeChanged { old, new } => fits_empty(pod, new) && has_more(pod, old, new),
            ClusterEvent::PodRemoved(_) | ClusterEvent::PodResized(_) => true,
            ClusterEvent::PodChanged(changed) => changed.uid == pod.uid && changed.requests != pod.requests,
        }
    }
}
